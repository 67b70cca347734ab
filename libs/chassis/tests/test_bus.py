import asyncio
import os

import nkeys
import pytest
import structlog
from msgspec import Struct

from entrepot_chassis import bus, logs
from entrepot_chassis.ports import TransactionConflict, Unanswered
from entrepot_testkit.servers import nats_server


class Ask(Struct, frozen=True, kw_only=True, tag="t.ask.v1"):
    n: int


class Got(Struct, frozen=True, kw_only=True, tag="t.got.v1"):
    n: int
    text: str = ""


class No(Struct, frozen=True, kw_only=True, tag="t.no.v1"):
    why: str


def failure(err: BaseException) -> No:
    return No(why=f"{type(err).__name__}: {err}")


async def ask(on: bus.NatsBus, subject: str, n: int, timeout_s: float = 10) -> Got | No:
    return await on.request(subject, Ask(n=n), reply=Got | No, timeout_s=timeout_s)


async def test_a_request_gets_its_typed_reply(core_bus):
    async def handler(command):
        return Got(n=command.n + 1)

    async with core_bus.answer("bus.a", Ask, handler, queue="q", failure=failure):
        assert await ask(core_bus, "bus.a", 1) == Got(n=2)


async def test_what_a_handler_raises_and_a_body_of_another_shape_are_answered_as_failure(core_bus):
    async def handler(_):
        raise ValueError("not so")

    async with core_bus.answer("bus.b", Ask, handler, queue="q", failure=failure):
        assert await ask(core_bus, "bus.b", 1) == No(why="ValueError: not so")
        answer = await core_bus.request("bus.b", Got(n=1), reply=Got | No, timeout_s=10)
        assert "ValidationError" in answer.why


async def test_nobody_there_is_unanswered_after_the_callers_time_out(core_bus):
    with pytest.raises(Unanswered) as caught:
        await ask(core_bus, "bus.nobody", 1, timeout_s=0.3)
    assert (caught.value.subject, caught.value.reason) == ("bus.nobody", "no responders")


async def test_silence_is_unanswered_and_asked_only_once(core_bus):
    calls = []

    async def handler(command):
        calls.append(command)
        await asyncio.sleep(3600)

    core_bus._drain_s = 0.2
    async with core_bus.answer("bus.slow", Ask, handler, queue="q", failure=failure):
        with pytest.raises(Unanswered) as caught:
            await ask(core_bus, "bus.slow", 1, timeout_s=0.3)
    assert (caught.value.reason, len(calls)) == ("timeout", 1)


async def test_a_request_waits_for_an_owner_that_is_just_starting(core_bus):
    async def handler(command):
        return Got(n=command.n)

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask(core_bus, "bus.late", 7))
        await asyncio.sleep(0.3)
        async with core_bus.answer("bus.late", Ask, handler, queue="q", failure=failure):
            assert await asked == Got(n=7)


async def test_a_request_outlives_a_restart_of_the_broker(own_nats, own_bus):
    async def handler(command):
        return Got(n=command.n)

    async with own_bus.answer("bus.r", Ask, handler, queue="q", failure=failure):
        own_nats.kill()
        own_nats.start()
        assert await ask(own_bus, "bus.r", 1) == Got(n=1)


async def test_up_to_the_limit_run_at_once(core_bus):
    running, most = 0, 0

    async def handler(command):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Got(n=command.n)

    async with core_bus.answer(
        "bus.many", Ask, handler, queue="q", failure=failure, in_flight_max=3
    ):
        got = await asyncio.gather(*(ask(core_bus, "bus.many", n) for n in range(12)))
    assert [answer.n for answer in got] == list(range(12))
    assert most == 3


async def test_draining_answers_every_request_taken_with_slow_handlers(nats_url, core_bus):
    """More requests than slots: those waiting in the subscription are answered as well."""
    taken = asyncio.Event()

    async def handler(command):
        taken.set()
        await asyncio.sleep(0.3)
        return Got(n=command.n)

    async with (
        asyncio.TaskGroup() as group,
        bus.connect(nats_url, name="draining", drain_s=20) as draining,
        draining.answer("bus.drain", Ask, handler, queue="q", failure=failure, in_flight_max=8),
    ):
        asked = [group.create_task(ask(core_bus, "bus.drain", n)) for n in range(20)]
        await taken.wait()
    assert sorted(task.result().n for task in asked) == list(range(20))


async def test_a_handler_beyond_the_drain_deadline_is_cancelled(nats_url, core_bus):
    taken, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_):
        taken.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with (
        asyncio.TaskGroup() as group,
        bus.connect(nats_url, name="d", drain_s=0.3) as draining,
        draining.answer("bus.stuck", Ask, handler, queue="q", failure=failure),
    ):
        asked = group.create_task(_unanswered(core_bus, "bus.stuck"))
        await taken.wait()
    assert cancelled.is_set()
    assert asked.result()


async def _unanswered(on: bus.NatsBus, subject: str) -> bool:
    with pytest.raises(Unanswered):
        await ask(on, subject, 1, timeout_s=1)
    return True


async def test_the_victim_of_a_deadlock_runs_again(core_bus):
    calls = 0

    async def handler(command):
        nonlocal calls
        calls += 1
        if calls < 3:
            raise TransactionConflict("deadlock")
        return Got(n=command.n)

    async with core_bus.answer("bus.conflict", Ask, handler, queue="q", failure=failure):
        assert await ask(core_bus, "bus.conflict", 1) == Got(n=1)


async def test_an_answer_too_large_for_the_bus_is_a_failure_not_silence(core_bus):
    async def handler(command):
        return Got(n=command.n, text="x" * 2_000_000)

    async with core_bus.answer("bus.large", Ask, handler, queue="q", failure=failure):
        assert "MaxPayload" in (await ask(core_bus, "bus.large", 1)).why


async def test_the_correlation_id_travels_with_the_command(core_bus):
    seen = []

    async def handler(command):
        seen.append(structlog.contextvars.get_contextvars()["corr"])
        return Got(n=command.n)

    async with core_bus.answer("bus.corr", Ask, handler, queue="q", failure=failure):
        with logs.bind(corr="c-1"):
            await ask(core_bus, "bus.corr", 1)
        await ask(core_bus, "bus.corr", 2)
    assert seen[0] == "c-1"
    assert seen[1] not in {"c-1", ""}


async def test_one_of_a_queue_group_answers_and_every_listener_hears(
    nats_url, core_bus, eventually
):
    answered, heard = [], []

    async def handler(command):
        answered.append(command.n)
        return Got(n=command.n)

    async def hear(message):
        heard.append(message.n)
        if message.n == 0:
            raise RuntimeError("a bad sample")

    async with (
        bus.connect(nats_url, name="two") as second,
        core_bus.answer("bus.q", Ask, handler, queue="q", failure=failure),
        second.answer("bus.q", Ask, handler, queue="q", failure=failure),
        core_bus.listen("tel.t", Ask, hear),
        second.listen("tel.t", Ask, hear),
    ):
        await ask(core_bus, "bus.q", 1)
        await core_bus.publish("tel.t", Got(n=9))
        await core_bus.publish("tel.t", Ask(n=0))
        await core_bus.publish("tel.t", Ask(n=1))
        await eventually(lambda: len(heard) == 4)
    assert (answered, sorted(heard)) == ([1], [0, 0, 1, 1])


async def test_publishing_without_a_broker_raises_nothing(own_nats, own_bus):
    own_nats.kill()
    await own_bus.publish("tel.t", Ask(n=1))
    with pytest.raises((ConnectionError, TimeoutError)):
        for _ in range(100):
            await own_bus.ping()
            await asyncio.sleep(0.02)


async def test_the_first_connect_keeps_trying_and_then_gives_up(tmp_path):
    with nats_server() as server:
        server.kill()
        with pytest.raises(ConnectionError, match=r"no NATS server at nats://127"):
            async with bus.connect(server.url, name="x", connect_s=0.7):
                pass
        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(_connected(server.url))
            await asyncio.sleep(0.3)
            server.start()
            assert await connecting


async def _connected(url: str) -> bool:
    async with bus.connect(url, name="x", connect_s=20) as opened:
        await opened.ping()
        return True


AUTH = """
authorization { users: [
  { user: narrow, password: pw, permissions: {
      publish: { allow: ["bus.ok", "_INBOX.>"] }, subscribe: { allow: ["_INBOX_narrow.>"] } } }
] }
"""


async def test_what_the_broker_does_not_allow_is_counted(eventually):
    with nats_server(extra_config=AUTH) as server:
        url = server.url.replace("nats://", "nats://narrow:pw@")
        async with bus.connect(url, name="narrow") as narrow:
            with pytest.raises(Unanswered):
                await ask(narrow, "bus.ok", 1, timeout_s=0.3)
            assert narrow.permission_violations == 0
            await narrow.publish("bus.forbidden", Ask(n=1))
            await eventually(lambda: narrow.permission_violations == 1)


async def test_a_service_proves_itself_by_its_nkey(tmp_path):
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "nkey").write_bytes(seed)
    stranger = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    (tmp_path / "stranger").write_bytes(stranger)
    with nats_server(extra_config=f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        async with bus.connect(
            server.url, name="svc", nkey_file=str(tmp_path / "nkey")
        ) as connected:
            await connected.ping()
        with pytest.raises(ConnectionError):
            async with bus.connect(
                server.url, name="svc", nkey_file=str(tmp_path / "stranger"), connect_s=1
            ):
                pass


async def test_leaving_while_the_broker_is_away_leaves_no_task_behind(own_nats):
    async with bus.connect(own_nats.url, name="svc") as connected:
        own_nats.kill()
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(100):
                await connected.ping()
                await asyncio.sleep(0.02)
    assert asyncio.all_tasks() == {asyncio.current_task()}
