"""Documents generated from the catalogue: docs/wire.md and docs/asyncapi.json.

`python -m entrepot_contracts.documents docs` writes both; a test fails when they are stale.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from entrepot_contracts import catalog
from entrepot_contracts.errors import Code, Problem, http_status

_REF = "#/components/schemas/{name}"


def tag_of(message: type[Struct]) -> str:
    return str(message.__struct_config__.tag)


def wire_messages() -> tuple[type[Struct], ...]:
    """Every struct that travels on its own: commands, replies, events, telemetry, problems."""
    kinds: dict[type[Struct], None] = {Problem: None}
    for command in catalog.COMMANDS:
        kinds[command.message] = None
        kinds[command.reply] = None
    for event in catalog.EVENTS:
        kinds[event.message] = None
    for telemetry in catalog.TELEMETRY:
        kinds[telemetry.message] = None
    return tuple(kinds)


def wire_markdown() -> str:
    """docs/wire.md: every message, its subject, owner and answer; every error code."""
    lines = [
        "# What travels",
        "",
        "Generated from `entrepot_contracts.catalog` by `make docs`; do not edit.",
        "JSON by msgspec; the field `type` holds the tag. A command is answered with its reply or",
        "with `problem.v1`. Golden files of every version: `libs/contracts/tests/golden/`.",
        "",
        "## Commands (core NATS request/reply, queue group = owner)",
        "",
        "| Subject | Command | Reply | Owner |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{c.subject}` | `{tag_of(c.message)}` | `{tag_of(c.reply)}` | {c.owner} |"
        for c in catalog.COMMANDS
    ]
    lines += [
        "",
        f"## Events (JetStream stream {catalog.STREAM}, through the owner's outbox)",
        "",
        "| Subject | Event | Aggregate id | Owner |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{e.subject}` | `{tag_of(e.message)}` | `{e.key}` | {e.owner} |" for e in catalog.EVENTS
    ]
    lines += ["", "## Telemetry (core publish, may be lost)", "", "| Subject | Message | Owner |"]
    lines += ["|---|---|---|"]
    lines += [f"| `{t.subject}` | `{tag_of(t.message)}` | {t.owner} |" for t in catalog.TELEMETRY]
    lines += ["", "## Error codes", "", "| Code | HTTP |", "|---|---|"]
    lines += [f"| `{code}` | {http_status(code).value} |" for code in Code]
    return "\n".join([*lines, ""])


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document; NATS details without a standard binding are under x-jetstream."""
    messages = wire_messages()
    references, schemas = msgspec.json.schema_components(messages, ref_template=_REF)
    payload = dict(zip(messages, references, strict=True))
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for command in catalog.COMMANDS:
        channels[command.subject] = _channel(
            payload, command.subject, command.message, command.reply
        )
        operations[command.subject] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{_pointer(command.subject)}"},
            "messages": [_message_reference(command.subject, command.message)],
            "reply": {
                "channel": {"$ref": f"#/channels/{_pointer(command.subject)}"},
                "messages": [_message_reference(command.subject, command.reply)],
            },
            "bindings": {"nats": {"queue": command.owner, "bindingVersion": "0.1.0"}},
        }
    for event in catalog.EVENTS:
        channels[event.subject] = _channel(payload, event.subject, event.message)
        operations[event.subject] = {
            **_send(event.subject, event.message),
            "x-jetstream": {"stream": catalog.STREAM, "producer": event.owner},
        }
    for telemetry in catalog.TELEMETRY:
        channels[telemetry.subject] = _channel(payload, telemetry.subject, telemetry.message)
        operations[telemetry.subject] = _send(telemetry.subject, telemetry.message)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Entrepot bus",
            "version": "1",
            "description": "PostgreSQL is the truth, NATS the doorbell (docs/architecture.md).",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas},
    }


def _pointer(subject: str) -> str:
    """A subject as a segment of a JSON pointer within a URI fragment."""
    return subject.replace("{", "%7B").replace("}", "%7D")


def _message_reference(subject: str, message: type[Struct]) -> dict[str, str]:
    return {"$ref": f"#/channels/{_pointer(subject)}/messages/{tag_of(message)}"}


def _send(subject: str, message: type[Struct]) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_pointer(subject)}"},
        "messages": [_message_reference(subject, message)],
    }


def _channel(
    payload: dict[type[Struct], dict[str, Any]], subject: str, *messages: type[Struct]
) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": subject,
        "messages": {
            tag_of(message): {
                "name": tag_of(message),
                "payload": payload[message],
            }
            for message in messages
        },
    }
    if "{id}" in subject:
        channel["parameters"] = {"id": {"description": "id of the aggregate"}}
    return channel


def write(folder: Path) -> None:
    (folder / "wire.md").write_text(wire_markdown(), encoding="utf-8")
    text = msgspec.json.format(msgspec.json.encode(asyncapi()), indent=1)
    (folder / "asyncapi.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
