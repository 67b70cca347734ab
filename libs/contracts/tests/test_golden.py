"""Every wire struct has a golden file that must decode for ever.

`ENTREPOT_WRITE_GOLDEN=1 pytest libs/contracts` writes the files that are missing; it never
touches one that exists: a released shape is changed only by adding fields with defaults.
"""

import importlib.util
import os
from pathlib import Path

import msgspec
import pytest

from entrepot_contracts.documents import tag_of, wire_messages

_spec = importlib.util.spec_from_file_location("examples", Path(__file__).parent / "examples.py")
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)

GOLDEN = Path(__file__).parent / "golden"
MESSAGES = sorted(wire_messages(), key=tag_of)


def _path(message):
    return GOLDEN / f"{tag_of(message)}.json"


@pytest.mark.parametrize("message", MESSAGES, ids=tag_of)
def test_every_message_has_a_golden_file_that_decodes_to_the_same_value(message):
    path = _path(message)
    if os.environ.get("ENTREPOT_WRITE_GOLDEN") and not path.exists():
        text = msgspec.json.encode(examples.example(message))
        path.write_bytes(msgspec.json.format(text, indent=1) + b"\n")
    decoded = msgspec.json.decode(path.read_bytes(), type=message)
    kept = msgspec.json.decode(path.read_bytes())
    sent = msgspec.json.decode(msgspec.json.encode(decoded))
    # What was written then is still said now; later fields may have joined it.
    assert _contains(sent, kept), f"{tag_of(message)} lost or changed a field"


def _contains(now, then):
    if isinstance(then, dict):
        return all(key in now and _contains(now[key], value) for key, value in then.items())
    if isinstance(then, list):
        return len(now) == len(then) and all(map(_contains, now, then))
    return now == then


def test_a_changed_golden_value_would_be_noticed():
    assert not _contains({"a": 1}, {"a": 2})
    assert not _contains({}, {"a": 1})
    assert _contains({"a": [1], "b": 2}, {"a": [1]})


def test_no_golden_file_is_without_its_message():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {tag_of(m) for m in MESSAGES}


def test_tags_are_unique_and_versioned():
    tags = [tag_of(message) for message in MESSAGES]
    assert len(set(tags)) == len(tags)
    assert all(tag.rsplit(".v", 1)[-1].isdigit() for tag in tags)


def test_an_unknown_tag_is_refused():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type":"registry.unknown.v1"}', type=MESSAGES[0])
