"""Direct: one mover reads the source and writes the target, nothing staged in between."""

from entrepot_plugin.ports import (
    Bid,
    Declined,
    EndFact,
    Leg,
    MotionAsk,
    MoverFact,
    TopologyView,
)
from motion_engine.reach import missing

_SIZE_UNKNOWN_BYTES = 1 << 30
_MISSES_TOLD_MAX = 8


class Direct:
    name = "direct"

    def bid(self, ask: MotionAsk, view: TopologyView) -> Bid | Declined:
        ends = (("source", ask.source), ("target", ask.target))
        misses = [(mover, missing(mover, ends)) for mover in view.movers]
        able = [mover for mover, lack in misses if not lack]
        if not able:
            return Declined(reason=_nobody(misses))
        pair = f"{_speaks(ask.source)}->{_speaks(ask.target)}"
        rate_bps = view.rate_bps.get(pair, view.rate_default_bps)
        size_bytes = _SIZE_UNKNOWN_BYTES if ask.size_bytes is None else ask.size_bytes
        known = "measured" if pair in view.rate_bps else "assumed"
        return Bid(
            cost_s=size_bytes / rate_bps,
            reason=f"{len(able)} of {len(view.movers)} movers reach both ends; "
            f"{rate_bps / 1e6:.0f} MB/s {known} for {pair}",
        )

    def plan(self, ask: MotionAsk, view: TopologyView) -> tuple[Leg, ...]:  # noqa: ARG002 - port
        ends = (ask.source, ask.target)
        return (
            Leg(
                source=ask.source.kind,
                target=ask.target.kind,
                zone_id=ask.target.zone_id or ask.source.zone_id,
                labels=tuple(sorted({end.reach_label for end in ends if end.reach_label})),
                providers=tuple(sorted({end.provider for end in ends if end.provider})),
            ),
        )


DIRECT = Direct()


def _speaks(end: EndFact) -> str:
    return end.provider or end.kind


def _nobody(misses: list[tuple[MoverFact, str]]) -> str:
    if not misses:
        return "no mover is alive"
    told = "; ".join(f"{mover.mover_id}: {lack}" for mover, lack in misses[:_MISSES_TOLD_MAX])
    rest = len(misses) - _MISSES_TOLD_MAX
    more = f"; and {rest} more" if rest > 0 else ""
    return f"no mover reaches both ends: {told}{more}"
