"""NATS permissions of each service, generated from the catalogue: what is not listed is denied."""

import json
from collections.abc import Mapping

from msgspec import Struct

from entrepot_contracts import catalog

ADMIN = "admin"  # creates and repairs streams; no service holds its key
MOVER = catalog.MOVER
SERVICES = (
    catalog.REGISTRY,
    catalog.MOTION,
    catalog.CACHE,
    catalog.FLEET,
    catalog.GATEWAY,
)


class Grant(Struct, frozen=True, kw_only=True):
    """Subjects one user may publish and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def grant_of(service: str) -> Grant:
    """What a service (or a mover) needs, and nothing else."""
    asks = (catalog.command_of(message).subject for message in catalog.ASKS[service])
    tells = (catalog.telemetry_of(message).subject for message in catalog.TELLS.get(service, ()))
    hears = (catalog.telemetry_of(message).subject for message in catalog.HEARS.get(service, ()))
    watches = (catalog.event_of(message).pattern for message in catalog.WATCHES.get(service, ()))
    watches = (catalog.event_of(message).pattern for message in catalog.WATCHES.get(service, ()))
    # "subject queue": only as a member of its own group may an owner listen to its commands.
    answers = (f"{entry.subject} {service}" for entry in catalog.commands_of_owner(service))
    return Grant(
        publish=(*asks, *tells, *_event_publishing(service), *_consuming(service)),
        subscribe=(*answers, *hears, *watches, f"_INBOX_{service}.>"),
    )


def _event_publishing(service: str) -> tuple[str, ...]:
    branch = catalog.EVENT_BRANCH.get(service)
    return () if branch is None else (branch,)


def _consuming(service: str) -> tuple[str, ...]:
    """Its own durable consumer and no other; every event may be read, none forged."""
    if service not in catalog.CONSUMERS:
        return ()
    stream, own = catalog.STREAM, f"{catalog.STREAM}.{service}"
    return (
        "$JS.API.INFO",
        f"$JS.API.STREAM.INFO.{stream}",
        # Only makes what is missing, after a broker lost its store; changing is another subject.
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{own}",
        f"$JS.API.CONSUMER.CREATE.{own}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{own}",
        f"$JS.API.CONSUMER.INFO.{own}",
        f"$JS.API.CONSUMER.MSG.NEXT.{own}",
        f"$JS.ACK.{own}.>",
    )


def authorization(keys: Mapping[str, str]) -> str:
    """The authorization block of nats-server. `keys`: public key per service, mover and admin."""
    users = []
    for name, public in keys.items():
        if name == ADMIN:
            permissions: dict[str, object] = {
                "publish": ["$JS.API.>"],
                "subscribe": [f"_INBOX_{ADMIN}.>"],
            }
        else:
            grant = grant_of(name)
            permissions = {
                "publish": {"allow": list(grant.publish)},
                "subscribe": {"allow": list(grant.subscribe)},
                "allow_responses": True,  # one reply to each request it was sent, no more
            }
        users.append({"nkey": public, "permissions": permissions})
    return "authorization " + json.dumps({"users": users}, indent=1)
