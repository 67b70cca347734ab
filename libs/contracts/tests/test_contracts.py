"""The catalogue, the errors and the documents made from them."""

from http import HTTPStatus
from pathlib import Path

import msgspec
import pytest

from entrepot_contracts import catalog, documents, registry
from entrepot_contracts.calls import ask
from entrepot_contracts.errors import Code, Problem, Refused, http_status, problem_of
from entrepot_contracts.values import Actor, Role

DOCS = Path(__file__).parents[3] / "docs"
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
ADMIN = Actor(account_id=ID, role=Role.ADMIN)


def test_subjects_follow_their_kind_and_no_two_commands_share_one():
    subjects = [entry.subject for entry in catalog.COMMANDS]
    assert len(set(subjects)) == len(subjects)
    assert all(subject.startswith("cmd.") for subject in subjects)
    assert all(entry.subject.startswith("evt.") for entry in catalog.EVENTS)


def test_the_owner_is_part_of_the_subject():
    words = {"store-registry": "registry", "motion-engine": "motion"}
    words |= {"cache-manager": "cache", "autoscaler": "fleet"}
    for entry in (*catalog.COMMANDS, *catalog.EVENTS):
        assert entry.subject.split(".")[1] == words[entry.owner]


def test_an_event_subject_is_filled_with_the_aggregate_id():
    event = registry.StoreChanged(
        store_id=ID,
        role="image",
        state="up",
        at=msgspec.convert("2026-11-20T00:00:00Z", registry.datetime),
    )
    assert catalog.event_of(registry.StoreChanged).subject_for(event) == (
        f"evt.registry.store.{ID}.changed"
    )


@pytest.mark.parametrize(
    "name", ["", "a\x00b", "line\nbreak", "a\x7f", "\u2028", "x" * 256, "ends\n"]
)
def test_names_with_control_characters_or_of_wrong_length_are_refused(name):
    with pytest.raises(msgspec.ValidationError, match=r"\$\.name"):
        msgspec.convert(
            {"actor": msgspec.to_builtins(ADMIN), "zone_id": ID, "name": name},
            registry.CreateZone,
        )


def test_every_code_has_a_status_that_is_an_error():
    assert all(http_status(code) >= HTTPStatus.BAD_REQUEST for code in Code)


def test_an_unknown_exception_tells_nothing_of_our_inside():
    problem = problem_of(ValueError("password=hunter2"))
    assert problem.code is Code.INTERNAL
    assert "hunter2" not in repr(problem)


def test_a_command_of_the_wrong_shape_is_the_callers_fault_and_says_where():
    with pytest.raises(msgspec.ValidationError) as wrong:
        msgspec.json.decode(b'{"actor": 5}', type=registry.ListZones)
    problem = problem_of(wrong.value)
    assert (problem.code, problem.retryable) == (Code.INVALID, False)
    assert "$.actor" in problem.message or "type" in problem.message


def test_a_refusal_keeps_its_fields_across_the_wire():
    problem = Refused(Code.INVALID, "no such zone", field="zone_id", hint="list zones").problem
    again = msgspec.json.decode(msgspec.json.encode(problem), type=Problem)
    assert Refused.of(again).problem == problem
    assert "zone_id" in str(Refused.of(again))


class _Answering:
    def __init__(self, answer):
        self.answer = answer

    async def request(self, subject, message, *, reply, timeout_s):
        self.asked = subject
        return msgspec.json.decode(msgspec.json.encode(self.answer), type=reply)


async def test_ask_returns_the_reply_or_raises_the_refusal():
    view = registry.ZoneView(zone_id=ID, name="z", region="r")
    command = registry.CreateZone(actor=ADMIN, zone_id=ID, name="z")
    bus = _Answering(view)
    assert await ask(bus, command) == view
    assert bus.asked == "cmd.registry.zone.create"
    with pytest.raises(Refused, match="taken"):
        await ask(_Answering(Problem(code=Code.CONFLICT, message="taken")), command)


def test_generated_documents_are_up_to_date(tmp_path):
    documents.write(tmp_path)
    for name in ("wire.md", "asyncapi.json"):
        assert (DOCS / name).read_bytes() == (tmp_path / name).read_bytes(), "run `make docs`"


def test_asyncapi_references_lead_somewhere():
    document = documents.asyncapi()
    schemas = document["components"]["schemas"]
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            assert message["payload"]["$ref"].rsplit("/", 1)[-1] in schemas
