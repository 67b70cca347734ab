"""One database, one role and one schema per service, opened by password only."""

from collections.abc import Mapping

from entrepot_cli.embedded.postgres_server import OWNER, PostgresServer

DATABASE = "entrepot"
_MAP = "launcher"


def schema_of(service: str) -> str:
    return service.replace("-", "_")


def prepare(server: PostgresServer, *, passwords: Mapping[str, str]) -> None:
    """Safe to repeat; passwords are set to the given ones each time."""
    roles = {schema_of(service): password for service, password in passwords.items()}
    server.ensure_database(DATABASE, roles={role: role for role in roles})
    server.psql("".join(_login_sql(role, password) for role, password in roles.items()))
    _close_door(server)


def _login_sql(role: str, password: str) -> str:
    assert role.isidentifier(), "our own names need no quoting"
    assert password.isalnum(), "our own passwords need no quoting"
    return f"ALTER ROLE {role} PASSWORD '{password}'; ALTER ROLE {role} SET search_path = {role};\n"


def _close_door(server: PostgresServer) -> None:
    """Take back the trust initdb gives everybody on the socket: services need their password,
    the owner is whoever the server itself runs as.
    """
    ident, hba = server.data_dir / "pg_ident.conf", server.data_dir / "pg_hba.conf"
    ident.write_text(f"{_MAP} {server.system_user} {OWNER}\n")
    hba.write_text(f"local all {OWNER} peer map={_MAP}\nlocal {DATABASE} all scram-sha-256\n")
    server.psql("SELECT pg_reload_conf()")
