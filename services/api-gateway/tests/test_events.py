"""Event streams: own events only, in order, resumed where they broke off."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
from prometheus_client import REGISTRY

from api_gateway.events import PROGRESS_MAX, EventRing
from entrepot_chassis.ports import OutboxEvent
from entrepot_contracts.catalog import event_of, telemetry_of
from entrepot_contracts.motion import TransferProgress
from entrepot_contracts.registry import JobChanged, TemplateChanged
from entrepot_contracts.values import JobState, ResourceState

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def job_changed(account_id, job_id=ID, second=0):
    return JobChanged(
        job_id=job_id,
        account_id=account_id,
        kind="template.register",
        resource_id=ID,
        state=JobState.SUCCEEDED,
        at=NOW + timedelta(seconds=second),
    )


def progress(account_id, transfer_id=ID, done=1):
    return TransferProgress(
        transfer_id=transfer_id,
        job_id=ID,
        account_id=account_id,
        mover_id=ID,
        epoch=1,
        phase="reading",
        bytes_done=done,
        bytes_total=None,
        rate_bps=0.0,
    )


class Stream:
    """Events off one open response; `comments` counts keep-alives."""

    def __init__(self, answer):
        self.answer = answer
        self._lines = answer.aiter_lines()
        self.comments = 0

    async def next(self):
        fields = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields:
                    return fields | {"data": json.loads(fields["data"])}
        return None

    async def begun(self):
        """The first comment is sent once the watcher hears."""
        async with asyncio.timeout(10):
            async for line in self._lines:
                if line.startswith(":"):
                    return


@asynccontextmanager
async def watching(client, *, last_id=None, query=""):
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.stream("GET", f"/v1/events{query}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = Stream(answer)
        await stream.begun()
        yield stream


async def say(gateway, event):
    await gateway.nats.publish(event_of(type(event)).subject_for(event), event)


async def test_an_account_sees_its_own_events_and_no_others(gateway):
    alice, bob = gateway.account_ids["alice"], gateway.account_ids["bob"]
    async with watching(gateway.alice) as alices, watching(gateway.bob) as bobs:
        await say(gateway, job_changed(alice, second=1))
        await gateway.nats.publish(telemetry_of(TransferProgress).subject, progress(alice))
        await say(gateway, job_changed(bob, second=2))
        first = await alices.next()
        assert first["event"] == "job.changed"
        assert first["data"]["account_id"] == alice
        assert "type" not in first["data"]
        only = await bobs.next()
        assert only["data"]["account_id"] == bob
        second = await alices.next()
        assert (second["event"], second["data"]["account_id"]) == ("transfer.progress", alice)
        assert "id" not in second


async def test_an_administrator_may_watch_every_account(gateway):
    async with watching(gateway.admin, query="?all_accounts=true") as stream:
        await say(gateway, job_changed(gateway.account_ids["bob"], second=3))
        assert (await stream.next())["data"]["account_id"] == gateway.account_ids["bob"]
    async with watching(gateway.admin) as own:
        await say(gateway, job_changed(gateway.account_ids["bob"], second=4))
        await say(gateway, job_changed(gateway.account_ids["admin"], second=5))
        assert (await own.next())["data"]["account_id"] == gateway.account_ids["admin"]


async def test_a_broken_stream_goes_on_after_the_last_event_seen(gateway):
    alice = gateway.account_ids["alice"]
    async with watching(gateway.alice) as stream:
        await say(gateway, job_changed(alice, second=10))
        seen = await stream.next()
        for second in (11, 12):
            await say(gateway, job_changed(alice, second=second))
        await stream.next()
    async with watching(gateway.alice, last_id=seen["id"]) as resumed:
        times = [(await resumed.next())["data"]["at"] for _ in range(2)]
    assert times == ["2026-11-20T12:00:11Z", "2026-11-20T12:00:12Z"]


async def test_an_id_nobody_remembers_is_answered_with_a_reset(gateway):
    async with watching(gateway.alice, last_id="0badc0de") as stream:
        assert (await stream.next())["event"] == "reset"


async def test_a_silent_stream_is_kept_alive_by_comments_only(gateway):
    async with watching(gateway.alice) as stream:
        await asyncio.sleep(gateway.settings.keep_alive_s * 5)
        await say(gateway, job_changed(gateway.account_ids["alice"], second=20))
        assert (await stream.next())["event"] == "job.changed"
        assert stream.comments >= 2


async def test_a_stream_ends_when_its_key_is_revoked(gateway):
    own = f"/v1/accounts/{gateway.account_ids['alice']}/keys"
    made = (await gateway.alice.post(own, json={"name": "w"})).json()
    async with gateway.client(made["key"]) as client, watching(client) as stream:
        await gateway.alice.delete(f"{own}/{made['id']}")
        await say(gateway, job_changed(gateway.account_ids["alice"], second=30))
        assert await stream.next() is None


async def test_events_of_the_outbox_reach_watchers_live(gateway):
    """Batches are published atomically to the stream; plain subscribers must hear them too."""
    await gateway.nats.stream_mark()
    alice = gateway.account_ids["alice"]
    changed = [job_changed(alice, second=second) for second in (40, 41, 42)]
    batch = [
        OutboxEvent(
            msg_id=f"test:{gateway.ids.new()}:{index}",
            subject=event_of(JobChanged).subject_for(event),
            data=msgspec.json.encode(event),
        )
        for index, event in enumerate(changed)
    ]
    async with watching(gateway.alice) as stream:
        await gateway.nats.publish_events(batch)
        await gateway.nats.publish_events(batch)  # the relay repeats after a lost answer
        await say(gateway, job_changed(alice, second=43))
        times = [(await stream.next())["data"]["at"][-3:-1] for _ in range(4)]
    assert times == ["40", "41", "42", "43"]


async def test_a_client_that_left_leaves_nothing_behind(gateway):
    def open_streams():
        return REGISTRY.get_sample_value("entrepot_event_streams")

    async with asyncio.timeout(10):
        while open_streams():  # noqa: ASYNC110 - uvicorn notices it, nobody tells us
            await asyncio.sleep(0.02)
        async with watching(gateway.alice), watching(gateway.bob):
            assert open_streams() == 2
        while open_streams():  # noqa: ASYNC110 - uvicorn notices it, nobody tells us
            await asyncio.sleep(0.02)


# --- the ring itself ---


async def drained(watcher):
    return await watcher.next(timeout_s=0.01)


async def test_a_watcher_that_fell_behind_the_ring_is_told_to_list_again():
    ring = EventRing(watchers_max=2, ring_max=3)
    watcher = ring.enter(account_id="a", last_id=None)
    for second in range(5):
        await ring.changed(job_changed("a", second=second))
    kinds = [happening.kind for happening in await drained(watcher)]
    assert kinds == ["reset", "job.changed", "job.changed", "job.changed"]
    assert await drained(watcher) == []


async def test_the_ring_forgets_the_oldest_and_knows_it():
    ring = EventRing(watchers_max=2, ring_max=2)
    watcher = ring.enter(account_id="a", last_id=None)
    await ring.changed(job_changed("a", second=0))
    oldest = (await drained(watcher))[0].event_id
    for second in (1, 2):
        await ring.changed(job_changed("a", second=second))
    late = ring.enter(account_id="a", last_id=oldest)
    assert (await drained(late))[0].kind == "reset"


async def test_after_a_gap_everybody_is_told_to_list_again():
    ring = EventRing(watchers_max=2)
    watcher = ring.enter(account_id="a", last_id=None)
    await ring.changed(job_changed("a", second=0))
    seen = (await drained(watcher))[0].event_id
    ring.interrupted()
    assert [happening.kind for happening in await drained(watcher)] == ["reset"]
    late = ring.enter(account_id="a", last_id=seen)
    assert [happening.kind for happening in await drained(late)] == ["reset"]
    await ring.changed(job_changed("a", second=1))
    assert [happening.kind for happening in await drained(watcher)] == ["job.changed"]


async def test_ids_are_the_same_on_every_gateway():
    rings = [EventRing(watchers_max=1) for _ in range(2)]
    event = TemplateChanged(template_id=ID, account_id="a", state=ResourceState.READY, at=NOW)
    ids = []
    for ring in rings:
        watcher = ring.enter(account_id="a", last_id=None)
        await ring.changed(event)
        ids.append((await drained(watcher))[0].event_id)
    assert ids[0] == ids[1] != ""


async def test_progress_is_bounded_and_the_latest_wins():
    ring = EventRing(watchers_max=1)
    watcher = ring.enter(account_id="a", last_id=None)
    for number in range(PROGRESS_MAX + 50):
        await ring.progressed(progress("a", transfer_id=f"t{number}"))
    await ring.progressed(progress("a", transfer_id="t300", done=99))
    await ring.progressed(progress("b", transfer_id="t0"))
    unread = await drained(watcher)
    assert len(unread) == PROGRESS_MAX
    assert json.loads(unread[-1].data)["bytes_done"] == 99


async def test_full_rings_take_no_more_watchers_and_closed_ones_end_all():
    ring = EventRing(watchers_max=1)
    watcher = ring.enter(account_id="a", last_id=None)
    assert ring.full
    ring.close()
    async with asyncio.timeout(5):
        assert await watcher.next(timeout_s=60) == []
    ring.leave(watcher)
    assert ring.full
