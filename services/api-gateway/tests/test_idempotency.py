"""The same request sent twice is carried out once, and answered the same."""

import asyncio

import httpx
import pytest

from entrepot_contracts import registry
from entrepot_contracts.errors import Code, Refused

GOOD = {"name": "u24", "url": "http://x/u24.qcow2", "format": "qcow2"}


def key(text):
    return {"Idempotency-Key": text}


async def test_a_repeat_is_answered_from_memory(gateway):
    first = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    again = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(gateway.owners.asked_of(registry.RegisterTemplate)) == 1


async def test_spelling_does_not_matter_but_meaning_does(gateway):
    first = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    reordered = dict(reversed(GOOD.items())) | {"scope": "region"}  # the default, said aloud
    again = await gateway.alice.post("/v1/templates", json=reordered, headers=key("k"))
    assert again.content == first.content
    other = await gateway.alice.post("/v1/templates", json=GOOD | {"name": "b"}, headers=key("k"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert other.json()["field"] == "Idempotency-Key"
    zone = await gateway.alice.post(
        f"/v1/templates/{first.json()['id']}/extract", json={}, headers=key("k")
    )
    assert zone.status_code == 422


async def test_keys_of_two_accounts_have_nothing_to_do_with_each_other(gateway):
    alices = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    bobs = await gateway.bob.post("/v1/templates", json=GOOD, headers=key("k"))
    assert bobs.status_code == 202
    assert bobs.json()["id"] != alices.json()["id"]
    assert "idempotency-replayed" not in bobs.headers


async def test_of_many_at_once_one_is_carried_out(gateway):
    gate = gateway.owners.held[registry.RegisterTemplate] = asyncio.Event()

    async def send():
        return await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))

    async with asyncio.TaskGroup() as tasks:
        sent = [tasks.create_task(send()) for _ in range(8)]
        while sum(task.done() for task in sent) < 7:  # noqa: ASYNC110 - seven answers
            await asyncio.sleep(0.01)
        gate.set()
    answers = [task.result() for task in sent]
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["retryable"]
    assert refused.headers["retry-after"] == "1"
    assert len(gateway.owners.asked_of(registry.RegisterTemplate)) == 1
    replay = await send()
    assert replay.headers["idempotency-replayed"] == "true"


async def test_an_unknown_outcome_is_asked_again_with_the_same_ids(gateway):
    held = gateway.owners.held[registry.RegisterTemplate] = asyncio.Event()
    lost = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    assert lost.status_code == 503
    held.set()
    again = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    assert again.status_code == 202
    first, second = gateway.owners.asked_of(registry.RegisterTemplate)
    assert (first.template_id, first.job_id) == (second.template_id, second.job_id)


async def test_a_client_that_left_does_not_block_its_own_repeat(gateway):
    held = gateway.owners.held[registry.RegisterTemplate] = asyncio.Event()
    async with gateway.client(gateway.keys["alice"]) as impatient:
        with pytest.raises(httpx.ReadTimeout):
            await impatient.post("/v1/templates", json=GOOD, headers=key("k"), timeout=0.2)
    held.set()
    async with asyncio.timeout(20):
        while True:
            again = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
            if again.status_code != 409:
                break
            await asyncio.sleep(0.05)
    assert again.status_code == 202
    ids = {command.template_id for command in gateway.owners.asked_of(registry.RegisterTemplate)}
    assert ids == {again.json()["id"]}


async def test_a_final_refusal_is_remembered_too(gateway):
    gateway.owners.refusals[registry.RegisterTemplate] = Refused(Code.QUOTA_EXCEEDED, "full")
    first = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    gateway.owners.refusals.clear()
    again = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    assert again.status_code == first.status_code == 422
    assert again.json()["code"] == "quota_exceeded"
    assert again.headers["content-type"] == "application/problem+json"


async def test_a_mistake_in_the_body_does_not_spend_the_key(gateway):
    bad = await gateway.alice.post("/v1/templates", json=GOOD | {"x": 1}, headers=key("k"))
    assert bad.status_code == 400
    good = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("k"))
    assert good.status_code == 202


async def test_a_new_api_key_is_shown_once_even_to_the_same_request(gateway):
    path = f"/v1/accounts/{gateway.account_ids['alice']}/keys"
    first = await gateway.alice.post(path, json={"name": "n"}, headers=key("k"))
    again = await gateway.alice.post(path, json={"name": "n"}, headers=key("k"))
    assert first.json()["key"].startswith("ek_")
    assert again.json() == first.json() | {"key": None}


async def test_deleting_twice_with_one_key_is_one_job(gateway):
    made = (await gateway.alice.post("/v1/templates", json=GOOD)).json()
    path = f"/v1/templates/{made['id']}"
    first = await gateway.alice.delete(path, headers=key("d"))
    again = await gateway.alice.delete(path, headers=key("d"))
    assert first.status_code == 202
    assert again.json() == first.json()


@pytest.mark.parametrize("text", ["x" * 256, "tab\there", ""])
async def test_a_key_that_is_none_is_refused(gateway, text):
    answer = await gateway.alice.post("/v1/templates", json=GOOD, headers=key(text))
    assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key")


async def test_rows_older_than_a_day_are_forgotten(gateway):
    from api_gateway.idempotency import HttpOnce, Once

    await gateway.alice.post("/v1/templates", json=GOOD, headers=key("old"))
    await gateway.alice.post("/v1/templates", json=GOOD, headers=key("new"))
    async with gateway.database.transaction() as tx:
        await tx.connection.execute(
            "UPDATE http_once SET created_at = created_at - interval '25 hours' "
            "WHERE row_id = (SELECT row_id FROM http_once ORDER BY created_at LIMIT 1)"
        )
    await Once(gateway.database, ids=gateway.ids).sweep()
    async with gateway.database.transaction() as tx:
        assert len(await tx.find(HttpOnce)) == 1
    again = await gateway.alice.post("/v1/templates", json=GOOD, headers=key("new"))
    assert again.headers["idempotency-replayed"] == "true"
