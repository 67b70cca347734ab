"""What mover tests stand on: a scripted ledger, one mover, directories, images."""

import asyncio
import hashlib
import random
import struct
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
from aiohttp import web

from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.seal import KeyPair, seal
from entrepot_contracts import motion
from entrepot_contracts.catalog import command_of
from entrepot_contracts.errors import Code, Refused, problem_of
from entrepot_contracts.values import (
    Checksum,
    ChecksumAlgorithm,
    ImageFormat,
    Sealed,
    StoreRole,
    StoreSpec,
)
from entrepot_plugin.discovery import load_stores
from entrepot_testkit.memory_bus import MemoryBroker
from motion_engine.mover.addresses import parse_cidrs
from motion_engine.mover.copying import Tools
from motion_engine.mover.fetch import FetchLimits, GuardedFetch
from motion_engine.mover.runner import Identity, Runner, World
from motion_engine.mover.threads import thread_pool

MIB = 1 << 20
LEAF = 4 * MIB
IDS = SystemIds()


class ScriptedLedger:
    """Answers a mover as motion-engine does, from memory, and remembers everything said."""

    def __init__(self):
        self.queue = []  # asks
        self.epochs = Counter()
        self.holders = {}  # transfer -> epoch that may speak
        self.checkpoints = {}  # transfer -> Checkpointed
        self.finished = {}  # transfer -> FinishWork
        self.released = []
        self.said = []  # every message in order
        self.cancel = set()
        self.silent = False  # do not answer renewals
        self.credentials = {}  # store id -> secrets
        self.mover_key = None
        self.changed = asyncio.Condition()
        self.on_checkpoint = None
        self.page = 1_000  # parts in one message

    def offer(self, work, *, attempts_max=5, transfer_id=None):
        ask = motion.TransferAsk(
            transfer_id=transfer_id or IDS.new(),
            account_id=IDS.new(),
            job_id=IDS.new(),
            work=work,
            attempts_max=attempts_max,
        )
        self.queue.append(ask)
        return ask

    async def register(self, message):
        self.said.append(message)
        self.mover_key = message.public_key
        return motion.MoverWelcome(lease_s=30, renew_s=10)

    async def claim(self, message):
        self.said.append(message)
        assert self.mover_key is not None, "a mover registers before it claims"
        grants = []
        while self.queue and len(grants) < message.free_slots:
            ask = self.queue.pop(0)
            self.epochs[ask.transfer_id] += 1
            epoch = self.holders[ask.transfer_id] = self.epochs[ask.transfer_id]
            grants.append(
                motion.Grant(
                    ask=ask,
                    epoch=epoch,
                    attempt=epoch,
                    strategy="direct",
                    credentials={
                        store: Sealed(
                            recipient=self.mover_key,
                            box=seal(self.mover_key, msgspec.json.encode(secrets)),
                        )
                        for store, secrets in self.credentials.items()
                    },
                    checkpoint=self._first_page(ask.transfer_id),
                )
            )
        if not grants:
            await asyncio.sleep(min(message.wait_s, 0.05))
        return motion.Granted(grants=tuple(grants))

    def _first_page(self, transfer_id):
        whole = self.checkpoints.get(transfer_id, motion.Checkpointed())
        more = len(whole.parts) > self.page
        return msgspec.structs.replace(whole, parts=whole.parts[: self.page], more=more)

    async def read_parts(self, message):
        self._held(message)
        self.said.append(message)
        parts = self.checkpoints[message.transfer_id].parts
        left = [one for one in parts if one.number > message.after]
        return motion.PartsOnRecord(parts=tuple(left[: self.page]), more=len(left) > self.page)

    def _held(self, message):
        if self.holders.get(message.transfer_id) != message.epoch:
            raise Refused(Code.FENCED, "another epoch holds it")

    async def renew(self, message):
        self.said.append(message)
        self._held(message)
        return motion.Renewed(cancel=message.transfer_id in self.cancel)

    async def checkpoint(self, message):
        self._held(message)
        self.said.append(message)
        past = self.checkpoints.get(message.transfer_id, motion.Checkpointed())
        same = (past.key, past.resume) == (message.key, message.resume)
        parts = {one.number: one for one in past.parts} if same else {}
        parts |= {one.number: one for one in message.parts}
        self.checkpoints[message.transfer_id] = motion.Checkpointed(
            key=message.key,
            resume=message.resume,
            parts=tuple(parts[n] for n in sorted(parts)),
            facts=past.facts | message.facts,
        )
        if self.on_checkpoint is not None:
            await self.on_checkpoint(message)
        return motion.Noted()

    async def finish(self, message):
        self._held(message)
        self.said.append(message)
        self.finished[message.transfer_id] = message
        async with self.changed:
            self.changed.notify_all()
        return motion.Noted()

    async def release(self, message):
        self._held(message)
        self.said.append(message)
        self.released.append(message.transfer_id)
        del self.holders[message.transfer_id]
        return motion.Noted()

    async def outcome(self, transfer_id):
        async with self.changed:
            await self.changed.wait_for(lambda: transfer_id in self.finished)
        message = self.finished[transfer_id]
        return message.result if message.problem is None else message.problem

    @asynccontextmanager
    async def answering(self, bus):
        answers = {
            motion.RegisterMover: self.register,
            motion.ClaimWork: self.claim,
            motion.ReadParts: self.read_parts,
            motion.RenewLease: self.renew,
            motion.Checkpoint: self.checkpoint,
            motion.FinishWork: self.finish,
            motion.ReleaseWork: self.release,
        }
        async with AsyncExitStack() as stack:
            for message, handler in answers.items():
                entry = command_of(message)
                await stack.enter_async_context(
                    bus.answer(
                        entry.subject, message, handler, queue="motion-engine", failure=problem_of
                    )
                )
            yield self


class Rig:
    """Directories for an image store and a pool, and the pieces to run movers over them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.image_path = self._made("images")
        self.pool_path = self._made("pool")
        self.image = self.spec(StoreRole.IMAGE, self.image_path)
        self.pool = self.spec(StoreRole.PRIMARY, self.pool_path)
        self.ledger = ScriptedLedger()
        self.plugins = dict(load_stores(["file"]))
        self.parts_in_flight = 2
        self.fetch_limits = FetchLimits(allowed=parse_cidrs(["127.0.0.0/8"]), stall_s=0.5)
        self.stall_s = 30.0
        self.drain_s = 2.0
        self.clock = SystemClock()

    def _made(self, name):
        path = self.folder / name
        path.mkdir()
        return path

    @staticmethod
    def spec(role, path):
        return StoreSpec(
            store_id=IDS.new(),
            role=role,
            provider="file",
            config={"path": str(path), "fsync": False},
        )

    def volume_file(self, volume_id, kind="raw"):
        return self.pool_path / "volumes" / f"{volume_id}.{kind}"

    def put_volume(self, volume_id, write, kind="raw"):
        path = self.volume_file(volume_id, kind)
        path.parent.mkdir(exist_ok=True)
        write(path)
        return path

    def objects(self):
        """Files of the image store, unfinished ones too."""
        root = self.image_path / "objects"
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())

    def wrap(self, name, **changes):
        self.plugins[name] = msgspec.structs.replace(self.plugins[name], **changes)

    @asynccontextmanager
    async def mover(self, *, mover_id=None, slots=2):
        """A running mover; leaving drains it. Yields (runner, task, stop)."""
        broker = MemoryBroker()
        async with AsyncExitStack() as stack:
            bus = broker.connection()
            await stack.enter_async_context(self.ledger.answering(bus))
            run_blocking = await stack.enter_async_context(thread_pool(2))
            world = World(
                bus=bus,
                clock=self.clock,
                ids=IDS,
                plugins=self.plugins,
                keys=KeyPair.new(),
                seal=seal,
                fetch=GuardedFetch(self.fetch_limits, self.clock),
                tools=Tools(run_blocking=run_blocking, parts_in_flight=self.parts_in_flight),
                stall_s=self.stall_s,
                drain_s=self.drain_s,
            )
            runner = Runner(Identity(mover_id=mover_id or IDS.new(), slots=slots), world)
            stop = asyncio.Event()
            task = asyncio.ensure_future(runner.run(stop))
            try:
                yield runner, task, stop
            finally:
                stop.set()
                with suppress(asyncio.CancelledError):
                    await task

    async def run(self, work, **options):
        """One piece of work by a mover of its own; its result or problem."""
        ask = self.ledger.offer(work, **options)
        async with self.mover(), asyncio.timeout(100):
            return await self.ledger.outcome(ask.transfer_id)

    def sent(self, kind):
        return [one for one in self.ledger.said if isinstance(one, kind)]


async def until(holds):
    """Wait for something that has no event to wait on."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def sha256(data):
    return Checksum(algorithm=ChecksumAlgorithm.SHA256, value=hashlib.sha256(data).hexdigest())


def url_end(url, *, kind=ImageFormat.RAW, checksum=None, size_max=1 << 30, virtual_max=1 << 40):
    return motion.UrlEnd(
        url=url,
        format=kind,
        checksum=checksum,
        size_bytes_max=size_max,
        virtual_size_bytes_max=virtual_max,
    )


def qcow2_header(
    *,
    virtual=1 << 30,
    cluster_bits=16,
    version=3,
    incompatible=0,
    backing=(0, 0),
    crypt=0,
    l1=None,
    l1_at=0x30000,
    ref_at=0x10000,
    ref_clusters=1,
    snapshots=0,
    header_length=104,
    extensions=b"",
    refcount_order=4,
):
    """A header as qemu-img writes it, each field open to abuse."""
    per = 1 << (2 * cluster_bits - 3)
    l1 = -(-virtual // per) if l1 is None else l1
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        *backing,
        cluster_bits,
        virtual,
        crypt,
        l1,
        l1_at,
        ref_at,
        ref_clusters,
        snapshots,
        0,
    )
    if version == 3:
        head += struct.pack(">QQQII", incompatible, 0, 0, refcount_order, header_length)
    return head + extensions


def qcow2_image(size=0x50000, **fields):
    head = qcow2_header(**fields)
    return head + bytes(size - len(head))


class ImageServer:
    """Serves bytes over HTTP, with ranges, strong ETags and every bad habit on demand."""

    def __init__(self):
        self.files = {}
        self.requests = []
        self.handlers = {}
        self.port = 0
        self.etags = True

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{name}"

    async def handle(self, request):
        name = request.match_info["name"]
        self.requests.append((name, request.headers.get("Range")))
        if name in self.handlers:
            return await self.handlers[name](request)
        data = self.files.get(name)
        if data is None:
            raise web.HTTPNotFound
        tag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        headers = {"ETag": tag} if self.etags else {}
        start = 0
        if request.headers.get("If-Range") == tag and self.etags:
            start = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return web.Response(body=data[start:], status=206 if start else 200, headers=headers)

    @asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_get("/{name}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()
