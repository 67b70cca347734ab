"""Chooses a path for every piece of work: all strategies bid, the cheapest wins, all is kept."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from entrepot_contracts.errors import Code, Problem
from entrepot_contracts.motion import (
    BidView,
    CopyWork,
    ObjectEnd,
    ProviderFact,
    TransferAsk,
    UrlEnd,
    VolumeEnd,
    Work,
)
from entrepot_contracts.values import StoreSpec, WorkClass
from entrepot_plugin.discovery import load_named
from entrepot_plugin.ports import (
    Bid,
    EndFact,
    Leg,
    MotionAsk,
    MotionStrategy,
    MoverFact,
    TopologyView,
)
from motion_engine.reach import label_of_store, needs_of
from motion_engine.rows import Mover, Transfer
from motion_engine.stimuli import Planned, Unplannable
from motion_engine.strategies.direct import DIRECT

STRATEGIES = "entrepot.strategies"
AT_STORE = "at-store"  # work on one store: there is nothing to bid for
_ORDER_WITHIN_S = {WorkClass.INTERACTIVE: 60, WorkClass.TEMPLATE: 600, WorkClass.BATCH: 6 * 3600}


class Topology(Struct, frozen=True, kw_only=True):
    """Movers alive, and every provider any mover ever announced."""

    movers: tuple[MoverFact, ...]
    providers: dict[str, ProviderFact]
    rate_bps: dict[str, float]


def load_strategies(names: Sequence[str]) -> tuple[MotionStrategy, ...]:
    """The enabled strategies. Raises PluginProblem for an absent or doubled one."""
    return tuple(load_named(STRATEGIES, name) for name in names)


def topology(
    movers: Sequence[Mover],
    rate_bps: Mapping[str, float],
    *,
    now: datetime,
    silent_s: float,
) -> Topology:
    by_age = sorted(movers, key=lambda mover: mover.seen_at)
    return Topology(
        movers=tuple(
            MoverFact(
                mover_id=mover.mover_id,
                zone_ids=mover.zone_ids,
                labels=mover.labels,
                providers=tuple(fact.name for fact in mover.providers),
                free_slots=mover.slots,
            )
            for mover in by_age
            if is_alive(mover, now=now, silent_s=silent_s)
        ),
        providers={fact.name: fact for mover in by_age for fact in mover.providers},
        rate_bps=dict(rate_bps),
    )


def is_alive(mover: Mover, *, now: datetime, silent_s: float) -> bool:
    return now - mover.seen_at <= timedelta(seconds=silent_s)


def new_transfer(ask: TransferAsk, *, now: datetime) -> Transfer:
    """The ledger row of an ask, not planned yet."""
    stores = stores_of(ask.work)
    within = timedelta(seconds=_ORDER_WITHIN_S[ask.work_class])
    return Transfer(
        transfer_id=ask.transfer_id,
        account_id=ask.account_id,
        job_id=ask.job_id,
        kind=str(type(ask.work).__struct_config__.tag),
        work_class=ask.work_class,
        ask=ask,
        attempts_max=ask.attempts_max,
        created_at=now,
        order_at=ask.due_at or now + within,
        zone_id=ask.zone_id or next((store.zone_id for store in stores if store.zone_id), None),
        store_ids=tuple(dict.fromkeys(store.store_id for store in stores)),
        rate_pair=_rate_pair(ask.work),
        size_bytes=_size_bytes(ask.work),
    )


def plan(
    ask: TransferAsk, known: Topology, strategies: Sequence[MotionStrategy]
) -> Planned | Unplannable:
    """Pure: the same ask, topology and strategies give the same plan."""
    motion, view = _question(ask, known)
    if isinstance(ask.work, CopyWork):
        bids = _take_bids(motion, view, strategies)
    else:
        bids = [_at_store(motion, view)]
    able = [bid for bid in bids if bid.view.cost_s is not None]
    if not able:
        return _nobody(ask, bids)
    best = min(able, key=lambda bid: (bid.view.cost_s, bid.view.strategy))
    ends = (motion.source, motion.target)
    zones = {ask.zone_id, *(end.zone_id for end in ends)} - {None}
    return Planned(
        strategy=best.view.strategy,
        bids=tuple(_chosen(bid.view, chosen=bid is best) for bid in bids),
        legs=best.legs,
        needs=needs_of(best.legs),
        zones=tuple(sorted(zone for zone in zones if zone)),
    )


def stores_of(work: Work) -> tuple[StoreSpec, ...]:
    if isinstance(work, CopyWork):
        ends = (work.source, work.target)
        return tuple(end.store for end in ends if not isinstance(end, UrlEnd))
    return (work.store,)


class _Offer(Struct, frozen=True):
    view: BidView
    legs: tuple[Leg, ...] = ()


def _question(ask: TransferAsk, known: Topology) -> tuple[MotionAsk, TopologyView]:
    work = ask.work
    if isinstance(work, CopyWork):
        source, target = (_end_fact(end, known.providers) for end in (work.source, work.target))
    else:
        source = target = _store_fact("store", work.store, known.providers)
    motion = MotionAsk(
        transfer_id=ask.transfer_id, source=source, target=target, size_bytes=_size_bytes(work)
    )
    movers = tuple(
        mover
        for mover in known.movers
        if not ask.zone_id or not mover.zone_ids or ask.zone_id in mover.zone_ids
    )
    return motion, TopologyView(movers=movers, rate_bps=known.rate_bps)


def _take_bids(
    motion: MotionAsk, view: TopologyView, strategies: Sequence[MotionStrategy]
) -> list[_Offer]:
    offers = []
    for strategy in strategies:
        answer = strategy.bid(motion, view)
        if not isinstance(answer, Bid):
            offers.append(_declined(strategy.name, answer.reason))
            continue
        legs = strategy.plan(motion, view)
        if len(legs) != 1:
            reason = f"its plan has {len(legs)} legs; this engine runs plans of one leg"
            offers.append(_declined(strategy.name, reason))
            continue
        view_ = BidView(
            strategy=strategy.name, chosen=False, cost_s=answer.cost_s, reason=answer.reason
        )
        offers.append(_Offer(view_, legs))
    return offers


def _at_store(motion: MotionAsk, view: TopologyView) -> _Offer:
    """Whoever could copy within the store can do any work at it."""
    answer = DIRECT.bid(motion, view)
    if not isinstance(answer, Bid):
        return _declined(AT_STORE, answer.reason)
    told = BidView(
        strategy=AT_STORE, chosen=False, cost_s=0.0, reason="work on one store, no bytes to move"
    )
    return _Offer(told, DIRECT.plan(motion, view))


def _declined(strategy: str, reason: str) -> _Offer:
    return _Offer(BidView(strategy=strategy, chosen=False, cost_s=None, reason=reason))


def _chosen(view: BidView, *, chosen: bool) -> BidView:
    return BidView(strategy=view.strategy, chosen=chosen, cost_s=view.cost_s, reason=view.reason)


def _nobody(ask: TransferAsk, offers: Sequence[_Offer]) -> Unplannable:
    reasons = "; ".join(f"{one.view.strategy}: {one.view.reason}" for one in offers)
    providers = sorted({store.provider for store in stores_of(ask.work)})
    where = f" in zone {ask.zone_id}" if ask.zone_id else ""
    problem = Problem(
        code=Code.NO_MOVER,
        message=f"nobody can do this now{where}: {reasons or 'no strategy is enabled'}",
        hint=f"start a mover with {', '.join(providers)} that reaches the stores; "
        "the work goes on by itself then",
        retryable=True,
    )
    return Unplannable(bids=tuple(one.view for one in offers), problem=problem)


def _end_fact(
    end: UrlEnd | ObjectEnd | VolumeEnd, providers: Mapping[str, ProviderFact]
) -> EndFact:
    if isinstance(end, UrlEnd):
        return EndFact(kind="url")
    kind = "object" if isinstance(end, ObjectEnd) else "volume"
    return _store_fact(kind, end.store, providers)


def _store_fact(kind: str, store: StoreSpec, providers: Mapping[str, ProviderFact]) -> EndFact:
    return EndFact(
        kind=kind,
        store_id=store.store_id,
        provider=store.provider,
        zone_id=store.zone_id,
        reach_label=label_of_store(store, providers),
    )


def _rate_pair(work: Work) -> str:
    if not isinstance(work, CopyWork):
        return ""
    source = work.source
    origin = "url" if isinstance(source, UrlEnd) else source.store.provider
    return f"{origin}->{work.target.store.provider}"


def _size_bytes(work: Work) -> int | None:
    """Bytes to move as far as the catalogue knows; unknown is None, never zero."""
    if not isinstance(work, CopyWork):
        return 0
    source = work.source
    if isinstance(source, ObjectEnd) and source.stored is not None:
        return source.stored.stored_bytes
    return None
