"""JetStream streams as data: make them, and refuse to run against one that differs."""

from collections.abc import Sequence

import nats
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from entrepot_chassis.ports import Misconfigured

_DAY_S = 86_400.0
_NAME_IN_USE = 10058  # made meanwhile by another service with another configuration


class StreamSpec(Struct, frozen=True, kw_only=True):
    """What a stream must be. File storage, limits retention, oldest discarded."""

    name: str
    subjects: tuple[str, ...]
    max_age_s: float = 30 * _DAY_S
    max_bytes: int = 2 * 1024**3
    max_msg_bytes: int = 256 * 1024
    duplicate_window_s: float = 600.0
    replicas: int = 1


EVT = StreamSpec(name="EVT", subjects=("evt.>",))


class StreamMismatch(Misconfigured):
    """The stream exists and is not what we need; `differences` says field: wanted, found."""

    def __init__(self, name: str, differences: Sequence[str]) -> None:
        super().__init__(f"stream {name} differs: {'; '.join(differences)}")
        self.differences = tuple(differences)


async def ensure(url: str, specs: Sequence[StreamSpec] = (EVT,), **connect: object) -> None:
    """The admin job: make what is missing, verify what is there."""
    client = await nats.connect(url, name="stream-admin", **connect)
    try:
        for spec in specs:
            await adopt(client.jetstream(), spec)
    finally:
        await client.close()


async def verify(js: JetStreamContext, spec: StreamSpec) -> api.StreamInfo:
    """The stream as it is; StreamMismatch if it is not `spec`, NotFoundError if missing."""
    info = await js.stream_info(spec.name)
    wanted, found = _config(spec), info.config
    differences = [
        f"{field}: wanted {getattr(wanted, field)}, found {getattr(found, field)}"
        for field in _COMPARED
        if getattr(wanted, field) != getattr(found, field)
    ]
    if differences:
        raise StreamMismatch(spec.name, differences)
    return info


async def adopt(js: JetStreamContext, spec: StreamSpec) -> api.StreamInfo:
    """Verify, or make it when missing (also after the broker lost everything)."""
    try:
        return await verify(js, spec)
    except NotFoundError:
        pass
    try:
        await js.add_stream(_config(spec))
    except APIError as err:
        if err.err_code != _NAME_IN_USE:
            raise
    return await verify(js, spec)


def is_gone(err: NatsError) -> bool:
    """Whether an error says that the stream or consumer does not exist."""
    return isinstance(err, NotFoundError)


_COMPARED = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "max_age",
    "max_bytes",
    "max_msg_size",
    "duplicate_window",
    "num_replicas",
    "deny_delete",
    "allow_atomic",
)


def _config(spec: StreamSpec) -> api.StreamConfig:
    return api.StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=spec.max_age_s,
        max_bytes=spec.max_bytes,
        max_msg_size=spec.max_msg_bytes,
        duplicate_window=spec.duplicate_window_s,
        num_replicas=spec.replicas,
        deny_delete=True,
        allow_atomic=True,
        allow_direct=True,
    )
