"""The composition of an embedded stack: which processes, with which settings, in which order."""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from entrepot_chassis.ports import Clock
from entrepot_cli.embedded import database_roles, grants, nkeys
from entrepot_cli.embedded.child import StartFailed
from entrepot_cli.embedded.folder import DataFolder, Endpoints
from entrepot_cli.embedded.nats_server import NatsServer
from entrepot_cli.embedded.postgres_server import PostgresServer
from entrepot_cli.embedded.streams_job import ensure_streams
from entrepot_cli.embedded.supervisor import Supervisor
from entrepot_cli.embedded.units import NatsUnit, PostgresUnit, ServiceUnit
from entrepot_contracts import catalog

READY_S = 120.0
MIGRATE_S = 120.0
_OURS = "ENTREPOT_"


class Plan(Struct, frozen=True, kw_only=True):
    movers: int = 1
    port: int | None = None  # of the API; None: the one of the last run, or a free one
    allow_sources: tuple[str, ...] = ()  # private networks that templates may be fetched from


class Stack:
    """Everything of one data folder; `start` returns when all of it is ready."""

    def __init__(self, folder: DataFolder, plan: Plan, *, clock: Clock) -> None:
        self._folder, self._plan = folder, plan
        self.supervisor = Supervisor(folder, clock=clock, changed=self._write_endpoints)
        self._movers = [f"mover-{number + 1}" for number in range(plan.movers)]
        self._health: dict[str, str] = {}
        self._announced = False
        names = ["nats", "api", *grants.SERVICES, *self._movers]
        self._ports = folder.ports(names)
        if plan.port is not None:
            self._ports["api"] = plan.port

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def admin_key_file(self) -> Path:
        return self._folder.secrets / "admin.key"

    def start(self) -> None:
        postgres = PostgresServer(
            self._folder.root / "postgres", log_path=self._folder.log_of("postgres")
        )
        self._nats = NatsServer(
            self._folder.root / "nats",
            port=self._ports["nats"],
            extra_config=self._authorization(),
            log_path=self._folder.log_of("nats"),
            die_with_parent=True,
        )
        nats = NatsUnit(self._nats, ensure_streams=self._ensure_streams)
        self.supervisor.start([nats, PostgresUnit(postgres)], timeout_s=READY_S)
        passwords = {service: self._password(service) for service in grants.SERVICES}
        database_roles.prepare(postgres, passwords=passwords)
        self._postgres = postgres
        self._migrate()
        services = [self._service(name) for name in grants.SERVICES]
        self.supervisor.start(services, timeout_s=READY_S)
        movers = [self._mover(name) for name in self._movers]
        self.supervisor.start(movers, timeout_s=READY_S)
        self._health = {unit.name: unit.health_url for unit in (*services, *movers)}
        self._announced = True
        self._write_endpoints()

    def stop(self) -> None:
        self._announced = False
        self._folder.endpoints_path.unlink(missing_ok=True)
        self.supervisor.stop()

    def _write_endpoints(self) -> None:
        if not self._announced:
            return
        self._folder.announce(
            Endpoints(
                api=self.api_url,
                health=self._health,
                pids=self.supervisor.pids,
                admin_key_file=str(self.admin_key_file),
                supervisor=os.getpid(),
            )
        )

    # --- keys ---

    def _nkey(self, name: str) -> Path:
        return self._folder.secret(f"nats-{name}.nk", nkeys.new_seed)

    def _password(self, service: str) -> str:
        path = self._folder.secret(f"postgres-{service}.password", lambda: secrets.token_hex(24))
        return path.read_text()

    def _authorization(self) -> str:
        names = (*grants.SERVICES, grants.MOVER, grants.ADMIN)
        return grants.authorization(
            {name: nkeys.public_key(self._nkey(name).read_text()) for name in names}
        )

    def _ensure_streams(self, url: str) -> None:
        ensure_streams(url, nkey_file=self._nkey(grants.ADMIN))

    # --- processes ---

    def _service(self, name: str) -> ServiceUnit:
        return self._unit(name, [sys.executable, "-m", module_of(name)], self._service_env(name))

    def _mover(self, name: str) -> ServiceUnit:
        own = {
            "NATS_URL": self._nats.url,
            "NATS_NKEY_FILE": str(self._nkey(grants.MOVER)),
            "HEALTH_PORT": str(self._ports[name]),
            "DATA_DIR": str(self._folder.state(name)),
        }
        if self._plan.allow_sources:
            own["SOURCE_ALLOW_CIDRS"] = ",".join(self._plan.allow_sources)
        env = environment("MOVER", own)
        return self._unit(name, [sys.executable, "-m", "motion_engine.mover"], env)

    def _unit(self, name: str, argv: Sequence[str], env: dict[str, str]) -> ServiceUnit:
        return ServiceUnit(
            name,
            argv,
            env=env,
            log_path=self._folder.log_of(name),
            health_port=self._ports[name],
        )

    def _service_env(self, name: str) -> dict[str, str]:
        own = {
            "NATS_URL": self._nats.url,
            "NATS_NKEY_FILE": str(self._nkey(name)),
            "DATABASE_URL": self._database_url(name),
            "HEALTH_PORT": str(self._ports[name]),
        }
        own |= self._own_settings(name)
        return environment(module_of(name).upper(), own)

    def _own_settings(self, name: str) -> dict[str, str]:
        keys = self._folder.secrets
        if name == catalog.GATEWAY:
            return {
                "HTTP_PORT": str(self._ports["api"]),
                "ADMIN_KEY_FILE": str(self.admin_key_file),
                "SEAL_KEY_FILE": str(keys / "gateway-seal.key"),
            }
        if name == catalog.REGISTRY:
            return {
                "SEALING_KEY_FILE": str(keys / "registry-sealing.key"),
                "AT_REST_KEY_FILE": str(keys / "registry-at-rest.key"),
            }
        return {}

    def _database_url(self, service: str) -> str:
        schema = database_roles.schema_of(service)
        url = self._postgres.dsn(role=schema, database=database_roles.DATABASE)
        return url.replace(f"{schema}@", f"{schema}:{self._password(service)}@", 1)

    def _migrate(self) -> None:
        """All schemas at once: each has its own, and each takes its own lock."""
        running = []
        for name in grants.SERVICES:
            with self._folder.log_of(f"{name}.migrate").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", module_of(name), "migrate"],
                        env=self._service_env(name),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        failed = [
            name
            for name, process in zip(grants.SERVICES, running, strict=True)
            if process.wait(timeout=MIGRATE_S) != 0
        ]
        if failed:
            logs = ", ".join(str(self._folder.log_of(f"{name}.migrate")) for name in failed)
            raise StartFailed(f"migration failed: {', '.join(failed)}; see {logs}")


def module_of(service: str) -> str:
    return service.replace("-", "_")


def environment(prefix: str, own: dict[str, str]) -> dict[str, str]:
    """Our environment without the settings of other services, with these settings of its own.

    What the operator exported for this service (ENTREPOT_MOTION_ENGINE_LEASE_S=3) is kept.
    """
    mine = f"{_OURS}{prefix}_"
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_OURS) or key.startswith(mine)
    }
    return kept | {mine + key: value for key, value in own.items()}
