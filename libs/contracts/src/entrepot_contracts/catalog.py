"""The one table message -> subject, owner, stream. Streams, NATS grants and docs come from it."""

from msgspec import Struct

from entrepot_contracts import cache, fleet, motion, registry

STREAM = "EVT"
STREAM_SUBJECTS = ("evt.>",)


class CommandEntry(Struct, frozen=True, kw_only=True):
    """Core request/reply, queue group = owner."""

    message: type[Struct]
    owner: str  # service that answers
    subject: str
    reply: type[Struct]


class EventEntry(Struct, frozen=True, kw_only=True):
    """JetStream, through the producer's outbox. `{id}` is filled with `key` of the message."""

    message: type[Struct]
    owner: str
    subject: str
    key: str  # attribute path of the aggregate id

    @property
    def pattern(self) -> str:
        """Subject of these events of every aggregate."""
        return self.subject.replace("{id}", "*")

    def subject_for(self, message: Struct) -> str:
        value: object = message
        for part in self.key.split("."):
            value = getattr(value, part)
        return self.subject.replace("{id}", str(value))


class TelemetryEntry(Struct, frozen=True, kw_only=True):
    """Core publish, lost without harm."""

    message: type[Struct]
    owner: str
    subject: str


REGISTRY, MOTION, CACHE, FLEET = "store-registry", "motion-engine", "cache-manager", "autoscaler"


def _command(message: type[Struct], owner: str, subject: str, reply: type[Struct]) -> CommandEntry:
    return CommandEntry(message=message, owner=owner, subject=subject, reply=reply)


def _event(message: type[Struct], owner: str, subject: str, key: str) -> EventEntry:
    return EventEntry(message=message, owner=owner, subject=subject, key=key)


_r, _m, _c, _f = registry, motion, cache, fleet

COMMANDS: tuple[CommandEntry, ...] = (
    _command(_r.CreateZone, REGISTRY, "cmd.registry.zone.create", _r.ZoneView),
    _command(_r.ListZones, REGISTRY, "cmd.registry.zone.list", _r.ZoneList),
    _command(_r.ListProviders, REGISTRY, "cmd.registry.provider.list", _r.ProviderList),
    _command(_r.AddStore, REGISTRY, "cmd.registry.store.add", _r.Accepted),
    _command(_r.ListStores, REGISTRY, "cmd.registry.store.list", _r.StoreList),
    _command(_r.DeleteStore, REGISTRY, "cmd.registry.store.delete", _r.Done),
    _command(_r.GetSealingKey, REGISTRY, "cmd.registry.sealing_key.get", _r.SealingKey),
    _command(_r.SealCredentials, REGISTRY, "cmd.registry.credentials.seal", _r.SealedCredentials),
    _command(_r.RegisterTemplate, REGISTRY, "cmd.registry.template.register", _r.Accepted),
    _command(_r.GetTemplate, REGISTRY, "cmd.registry.template.get", _r.TemplateView),
    _command(_r.ListTemplates, REGISTRY, "cmd.registry.template.list", _r.TemplateList),
    _command(_r.DeleteTemplate, REGISTRY, "cmd.registry.template.delete", _r.Accepted),
    _command(_r.ExtractTemplate, REGISTRY, "cmd.registry.template.extract", _r.Accepted),
    _command(_r.CreateVolume, REGISTRY, "cmd.registry.volume.create", _r.Accepted),
    _command(_r.GetVolume, REGISTRY, "cmd.registry.volume.get", _r.VolumeView),
    _command(_r.ListVolumes, REGISTRY, "cmd.registry.volume.list", _r.VolumeList),
    _command(_r.DeleteVolume, REGISTRY, "cmd.registry.volume.delete", _r.Accepted),
    _command(_r.CreateSnapshot, REGISTRY, "cmd.registry.snapshot.create", _r.Accepted),
    _command(_r.GetSnapshot, REGISTRY, "cmd.registry.snapshot.get", _r.SnapshotView),
    _command(_r.ListSnapshots, REGISTRY, "cmd.registry.snapshot.list", _r.SnapshotList),
    _command(_r.DeleteSnapshot, REGISTRY, "cmd.registry.snapshot.delete", _r.Accepted),
    _command(_r.GetJob, REGISTRY, "cmd.registry.job.get", _r.JobView),
    _command(_r.ListJobs, REGISTRY, "cmd.registry.job.list", _r.JobList),
    _command(_r.GetSettings, REGISTRY, "cmd.registry.setting.list", _r.SettingList),
    _command(_r.PutSetting, REGISTRY, "cmd.registry.setting.put", _r.SettingList),
    _command(_m.RegisterMover, MOTION, "cmd.motion.mover.register", _m.MoverWelcome),
    _command(_m.ListMovers, MOTION, "cmd.motion.mover.list", _m.MoverList),
    _command(_m.ClaimWork, MOTION, "cmd.motion.claim", _m.Granted),
    _command(_m.ReadParts, MOTION, "cmd.motion.parts.read", _m.PartsOnRecord),
    _command(_m.RenewLease, MOTION, "cmd.motion.lease.renew", _m.Renewed),
    _command(_m.Checkpoint, MOTION, "cmd.motion.checkpoint", _m.Noted),
    _command(_m.FinishWork, MOTION, "cmd.motion.finish", _m.Noted),
    _command(_m.ReleaseWork, MOTION, "cmd.motion.release", _m.Noted),
    _command(_m.ListTransfers, MOTION, "cmd.motion.transfer.list", _m.TransferList),
    _command(_m.GetTransfer, MOTION, "cmd.motion.transfer.get", _m.TransferView),
    _command(_m.CancelTransfer, MOTION, "cmd.motion.transfer.cancel", _m.Noted),
    _command(_c.AddPool, CACHE, "cmd.cache.pool.add", _c.PoolView),
    _command(_c.ListPools, CACHE, "cmd.cache.pool.list", _c.PoolList),
    _command(_c.RemovePool, CACHE, "cmd.cache.pool.remove", _c.PoolGone),
    _command(_c.AcquireLease, CACHE, "cmd.cache.lease.acquire", _c.LeaseView),
    _command(_c.RenewLease, CACHE, "cmd.cache.lease.renew", _c.LeaseView),
    _command(_c.ReleaseLease, CACHE, "cmd.cache.lease.release", _c.LeaseReleased),
    _command(_c.ReportFill, CACHE, "cmd.cache.fill.report", _c.FillNoted),
    _command(_f.PutPool, FLEET, "cmd.fleet.pool.put", _f.PoolView),
    _command(_f.ListPools, FLEET, "cmd.fleet.pool.list", _f.PoolList),
)

EVENTS: tuple[EventEntry, ...] = (
    _event(_r.MotionRequested, REGISTRY, "evt.registry.motion.{id}.requested", "ask.transfer_id"),
    _event(_r.MotionCancelled, REGISTRY, "evt.registry.motion.{id}.cancelled", "transfer_id"),
    _event(_r.StoreChanged, REGISTRY, "evt.registry.store.{id}.changed", "store_id"),
    _event(_r.TemplateChanged, REGISTRY, "evt.registry.template.{id}.changed", "template_id"),
    _event(_r.VolumeChanged, REGISTRY, "evt.registry.volume.{id}.changed", "volume_id"),
    _event(_r.SnapshotChanged, REGISTRY, "evt.registry.snapshot.{id}.changed", "snapshot_id"),
    _event(_r.JobChanged, REGISTRY, "evt.registry.job.{id}.changed", "job_id"),
    _event(_m.MoverRegistered, MOTION, "evt.motion.mover.{id}.registered", "mover_id"),
    _event(_m.TransferSucceeded, MOTION, "evt.motion.transfer.{id}.succeeded", "transfer_id"),
    _event(_m.TransferFailed, MOTION, "evt.motion.transfer.{id}.failed", "transfer_id"),
    _event(_c.EntryChanged, CACHE, "evt.cache.entry.{id}.changed", "entry_id"),
    _event(_f.Decided, FLEET, "evt.fleet.pool.{id}.decided", "pool_id"),
)

TELEMETRY: tuple[TelemetryEntry, ...] = (
    TelemetryEntry(message=_m.TransferProgress, owner=MOTION, subject="tel.motion.progress"),
    TelemetryEntry(message=_f.LoadSample, owner=MOTION, subject="tel.motion.load"),
    TelemetryEntry(message=_m.Bell, owner=MOTION, subject="bell.motion"),
)

GATEWAY, MOVER = "api-gateway", "mover"
_MOVER_ASKS = (
    _m.RegisterMover,
    _m.ClaimWork,
    _m.ReadParts,
    _m.RenewLease,
    _m.Checkpoint,
    _m.FinishWork,
    _m.ReleaseWork,
)
_CACHE_LEASING = (_c.AcquireLease, _c.RenewLease, _c.ReleaseLease, _c.ReportFill)
_INTERNAL = {_r.SealCredentials, *_MOVER_ASKS, *_CACHE_LEASING}

# Who may ask what of other services; NATS grants are generated from it, nothing else is allowed.
ASKS: dict[str, tuple[type[Struct], ...]] = {
    GATEWAY: tuple(entry.message for entry in COMMANDS if entry.message not in _INTERNAL),
    REGISTRY: (),
    MOTION: (_r.SealCredentials, *_CACHE_LEASING),
    CACHE: (),
    FLEET: (),
    MOVER: _MOVER_ASKS,
}

# Who may publish and who may hear telemetry.
TELLS: dict[str, tuple[type[Struct], ...]] = {
    MOTION: (_m.TransferProgress, _f.LoadSample, _m.Bell),
    MOVER: (_m.TransferProgress,),
}
HEARS: dict[str, tuple[type[Struct], ...]] = {
    GATEWAY: (_m.TransferProgress,),
    REGISTRY: (_m.TransferProgress,),
    MOTION: (_m.TransferProgress, _m.Bell),
    FLEET: (_f.LoadSample,),
}

# Who may also hear events as they are published (core subscription, nothing kept): live views,
# where every instance must hear everything and what was missed is listed again.
WATCHES: dict[str, tuple[type[Struct], ...]] = {
    GATEWAY: (_r.JobChanged, _r.TemplateChanged, _r.VolumeChanged, _r.SnapshotChanged),
}

# The event streams' branch each service publishes on; everybody may consume every event.
EVENT_BRANCH: dict[str, str] = {
    entry.owner: ".".join(entry.subject.split(".")[:2]) + ".>" for entry in EVENTS
}
CONSUMERS = (GATEWAY, REGISTRY, MOTION, CACHE, FLEET)

_COMMANDS = {entry.message: entry for entry in COMMANDS}
_EVENTS = {entry.message: entry for entry in EVENTS}
_TELEMETRY = {entry.message: entry for entry in TELEMETRY}


def command_of(message: type[Struct]) -> CommandEntry:
    return _COMMANDS[message]


def event_of(message: type[Struct]) -> EventEntry:
    return _EVENTS[message]


def telemetry_of(message: type[Struct]) -> TelemetryEntry:
    return _TELEMETRY[message]


def commands_of_owner(owner: str) -> tuple[CommandEntry, ...]:
    return tuple(entry for entry in COMMANDS if entry.owner == owner)
