"""Options every command shares: where the API is, whose key to use, how to print."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from entrepot_cli.exits import Exit, Failure

Output = Literal["table", "json", "jsonl", "name"]
START = "start a stack with `entrepot up`, or set ENTREPOT_URL and ENTREPOT_KEY"


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """DIR/run/endpoints.json of a running stack, as far as we need it."""

    api: str
    admin_key_file: str = ""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Session:
    """Flags win over the environment, the environment over the stack of --data."""

    output: Annotated[
        Output, Parameter(name=["--output", "-o"], help="name prints ids, one per line.")
    ] = "table"
    url: Annotated[str | None, Parameter(env_var="ENTREPOT_URL", help="Address of the API.")] = None
    key_file: Annotated[
        Path | None,
        Parameter(env_var="ENTREPOT_KEY_FILE", help="File with the API key; or set ENTREPOT_KEY."),
    ] = None
    data: Annotated[
        Path | None,
        Parameter(env_var="ENTREPOT_DATA", help="Data folder of `entrepot up`: its API and key."),
    ] = None

    def address(self) -> str:
        return (self.url or self._endpoints().api).rstrip("/")

    def key(self) -> str:
        if self.key_file is not None:
            return _read(self.key_file)
        if from_environment := os.environ.get("ENTREPOT_KEY", ""):
            return from_environment.strip()
        return _read(Path(self._endpoints().admin_key_file or self._root() / "admin.key"))

    def _root(self) -> Path:
        if self.data is not None:
            return self.data
        from entrepot_cli.embedded.folder import default_root

        return default_root()

    def _endpoints(self) -> Endpoints:
        path = self._root() / "run" / "endpoints.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Endpoints)
        except (OSError, msgspec.DecodeError):
            raise Failure(
                Exit.USAGE, "no_context", f"no running stack in {self._root()}", hint=START
            ) from None


SESSION = Session()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Failure(
            Exit.USAGE, "no_context", f"no key in {path}: {error.strerror}", hint=START
        ) from None
