"""`entrepot up`, `down` and `status`: the embedded stack as an operator sees it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import psutil
import structlog
from cyclopts import Parameter

from entrepot_chassis.clock import SystemClock
from entrepot_cli.embedded.child import StartFailed
from entrepot_cli.embedded.folder import DataFolder, Occupied, ProcessMark, default_root
from entrepot_cli.embedded.stack import Plan, Stack
from entrepot_cli.embedded.supervisor import stop_on_signals
from entrepot_cli.embedded.takeover import end, end_leftovers
from entrepot_cli.embedded.units import answers_ready

SUPERVISOR = "supervisor"
PROGRAM = "entrepot"
DETACH_READY_S = 180.0
DOWN_S = 120.0
POLL_S = 0.1
MIB = 1 << 20


DataOption = Annotated[
    Path | None,
    Parameter(help="folder of all data, secrets and logs; found again by the next start"),
]


def up(
    *,
    data: DataOption = None,
    movers: Annotated[int, Parameter(help="how many movers to run")] = 1,
    port: Annotated[
        int | None,
        Parameter(help="of the API on 127.0.0.1; default: that of the last run, or a free one"),
    ] = None,
    allow_source: Annotated[
        tuple[str, ...],
        Parameter(help="network (CIDR) that template URLs may lead to, private and loopback too"),
    ] = (),
    detach: Annotated[
        bool, Parameter(help="return when all is ready; `entrepot down` stops it")
    ] = False,
) -> None:
    """Run everything on this machine: nats-server, PostgreSQL, the five services and movers.

    Stays in the foreground until Ctrl-C or SIGTERM, then drains and leaves nothing running.
    """
    folder = DataFolder(data or default_root())
    plan = Plan(movers=movers, port=port, allow_sources=allow_source)
    if detach:
        _up_detached(folder, plan)
        return
    folder.prepare()
    try:
        with folder.locked():
            _run(folder, plan)
    except (Occupied, StartFailed) as err:
        _fail(str(err))


def _run(folder: DataFolder, plan: Plan) -> None:
    _log_to(folder)
    log = structlog.get_logger(SUPERVISOR)
    if leftovers := end_leftovers(folder):
        log.warning("takeover.ended", processes=leftovers)
        print(f"ended what a killed run left behind: {', '.join(leftovers)}", flush=True)
    folder.mark(SUPERVISOR, os.getpid())
    stack = Stack(folder, plan, clock=SystemClock())
    stop_on_signals(stack.supervisor)
    try:
        stack.start()
        _introduce(folder, stack.api_url, stack.admin_key_file)
        stack.supervisor.watch()
        print("stopping", flush=True)
    except StartFailed:
        if not stack.supervisor.stopping:
            raise
    finally:
        stack.stop()
        folder.unmark(SUPERVISOR)
        log.info("supervisor.stopped")


def _introduce(folder: DataFolder, api: str, admin_key_file: Path) -> None:
    print(
        f"Entrepot is up.\n"
        f"  API        {api}/v1\n"
        f"  admin key  {admin_key_file}\n"
        f"  logs       {folder.log}\n"
        f"  stop       entrepot down --data {folder.root}\n"
        f"  try        export ENTREPOT_URL={api} ENTREPOT_KEY_FILE={admin_key_file}; "
        f"entrepot zone list",
        flush=True,
    )
    show_key(admin_key_file)


def show_key(path: Path) -> None:
    """The key itself, to the operator's own terminal only: pipes and logs get the file's name."""
    if sys.stdout.isatty():
        print(f"  its key    {path.read_text().strip()}", flush=True)


def _log_to(folder: DataFolder) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=folder.log_of(SUPERVISOR).open("a")),
        cache_logger_on_first_use=True,
    )


def _up_detached(folder: DataFolder, plan: Plan) -> None:
    folder.prepare()
    argv = [sys.executable, "-m", "entrepot_cli", "up", "--data", str(folder.root)]
    argv += ["--movers", str(plan.movers)]
    argv += ["--port", str(plan.port)] if plan.port is not None else []
    argv += [word for network in plan.allow_sources for word in ("--allow-source", network)]
    output = folder.log_of("up")
    with output.open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    clock = SystemClock()
    deadline_s = clock.monotonic() + DETACH_READY_S
    while clock.monotonic() < deadline_s:
        found = folder.endpoints()
        if found is not None and found.supervisor == process.pid:
            print(output.read_text(), end="")
            show_key(Path(found.admin_key_file))
            return
        try:
            process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            continue
        _fail(output.read_text().strip().removeprefix(f"{PROGRAM}: "))
    process.send_signal(signal.SIGTERM)
    _fail(f"not ready after {DETACH_READY_S:.0f} s; see {folder.log}")


def down(*, data: DataOption = None) -> None:
    """Stop the stack of a data folder: drain, then leave nothing running. Its data stays."""
    folder = DataFolder(data or default_root())
    mark = folder.marked(SUPERVISOR)
    ended = mark is not None and end(mark, stop_signal=signal.SIGTERM, gentle_s=DOWN_S)
    leftovers = end_leftovers(folder)
    print("stopped" if ended or leftovers else "nothing was running")


def status(*, data: DataOption = None) -> None:
    """What runs in a data folder: pid, readiness, memory and age of every process."""
    folder = DataFolder(data or default_root())
    marks = folder.all_marked()
    endpoints = folder.endpoints()
    print(f"API {endpoints.api}" if endpoints else "not ready")
    for name, mark in marks.items():
        url = endpoints.health.get(name) if endpoints else None
        print(f"{name:16} {_describe(mark, url)}")
    if endpoints is None:
        raise SystemExit(1)


def _describe(mark: ProcessMark, health_url: str | None) -> str:
    process = mark.process()
    if process is None:
        return "dead"
    try:
        memory = process.memory_info().rss / MIB
        ready = "" if health_url is None else _readiness(health_url)
    except psutil.NoSuchProcess:
        return "dead"
    return f"pid {mark.pid:<8} {memory:6.0f} MiB  {ready}"


def _readiness(health_url: str) -> str:
    return "ready" if answers_ready(int(health_url.rsplit(":", 1)[1])) else "not ready"


def _fail(reason: str) -> NoReturn:
    print(f"{PROGRAM}: {reason}", file=sys.stderr)
    raise SystemExit(1)
