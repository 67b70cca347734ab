"""The configuration files of a one-node Swift: tempauth, s3api and the usual middleware."""

import os
import pwd
from pathlib import Path

from msgspec import Struct

PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk tempurl s3api "
    "tempauth copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-logging "
    "proxy-server"
)
FILTERS: dict[str, tuple[str, dict[str, str]]] = {
    "healthcheck": ("healthcheck", {}),
    "catch_errors": ("catch_errors", {}),
    "gatekeeper": ("gatekeeper", {}),
    "listing_formats": ("listing_formats", {}),
    "proxy-logging": ("proxy_logging", {}),
    "bulk": ("bulk", {}),
    "tempurl": ("tempurl", {"methods": "GET HEAD PUT POST DELETE"}),
    "copy": ("copy", {}),
    "container-quotas": ("container_quotas", {}),
    "account-quotas": ("account_quotas", {}),
    "slo": ("slo", {"min_segment_size": "1"}),
    "dlo": ("dlo", {}),
    "symlink": ("symlink", {}),
    "versioned_writes": (
        "versioned_writes",
        {"allow_versioned_writes": "true", "allow_object_versioning": "true"},
    ),
    "s3api": (
        "s3api",
        {
            "location": "us-east-1",
            "s3_acl": "false",
            "check_bucket_owner": "false",
            "allow_multipart_uploads": "true",
            "min_segment_size": "5242880",
        },
    ),
}


class SwiftPorts(Struct, frozen=True, kw_only=True):
    proxy: int
    account: int
    container: int
    object: int
    memcached: int


class SwiftUser(Struct, frozen=True, kw_only=True):
    """The pair serves the Swift API (X-Auth-User/-Key) and S3 (access key / secret key)."""

    account: str
    name: str
    key: str

    @property
    def access_key(self) -> str:
        return f"{self.account}:{self.name}"


def write_config(directory: Path, ports: SwiftPorts, user: SwiftUser) -> Path:
    """All files below `directory`/etc; returns that folder."""
    etc = directory / "etc"
    for folder in (etc, directory / "log", directory / "cache", directory / "srv" / "d1"):
        folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "swift.conf": _section("swift-hash", _hash()) + _section("swift-constraints", _limits()),
        "proxy-server.conf": _proxy(directory, ports, user),
    }
    for kind in ("account", "container", "object"):
        texts[f"{kind}-server.conf"] = _backend(directory, kind, getattr(ports, kind))
    for name, text in texts.items():
        path = etc / name
        path.write_text(text)
        path.chmod(0o600)
    return etc


def _hash() -> dict[str, str]:
    """Constant on purpose: data of a folder is lost to a Swift with another suffix."""
    return {"swift_hash_path_suffix": "entrepot", "swift_hash_path_prefix": "entrepot"}


def _limits() -> dict[str, str]:
    return {"max_file_size": str((5 << 30) + 2)}


def _defaults(directory: Path, port: int) -> dict[str, str]:
    return {
        "bind_ip": "127.0.0.1",
        "bind_port": str(port),
        "workers": "0",
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "swift_dir": str(directory / "etc"),
        "devices": str(directory / "srv"),
        "mount_check": "false",
        "disable_fallocate": "true",
        "recon_cache_path": str(directory / "cache"),
        "log_level": "WARNING",
        "log_address": "/dev/null",
        "log_udp_host": "127.0.0.1",  # not `localhost`, which a bare root cannot look up
        "eventlet_debug": "false",
    }


def _backend(directory: Path, kind: str, port: int) -> str:
    return "".join(
        (
            _section("DEFAULT", _defaults(directory, port)),
            _section("pipeline:main", {"pipeline": f"healthcheck {kind}-server"}),
            _section(f"app:{kind}-server", {"use": f"egg:swift#{kind}"}),
            _section("filter:healthcheck", {"use": "egg:swift#healthcheck"}),
            *(_section(f"{kind}-{part}", {}) for part in ("replicator", "auditor", "updater")),
        )
    )


def _proxy(directory: Path, ports: SwiftPorts, user: SwiftUser) -> str:
    app = {
        "use": "egg:swift#proxy",
        "account_autocreate": "true",
        "allow_account_management": "true",
    }
    tempauth = {
        "use": "egg:swift#tempauth",
        f"user_{user.account}_{user.name}": f"{user.key} .admin",
        "storage_url_scheme": "http",
    }
    cache = {"use": "egg:swift#memcache", "memcache_servers": f"127.0.0.1:{ports.memcached}"}
    return "".join(
        (
            _section("DEFAULT", _defaults(directory, ports.proxy)),
            _section("pipeline:main", {"pipeline": PIPELINE}),
            _section("app:proxy-server", app),
            _section("filter:tempauth", tempauth),
            _section("filter:cache", cache),
            *(
                _section(f"filter:{name}", {"use": f"egg:swift#{egg}", **options})
                for name, (egg, options) in FILTERS.items()
            ),
        )
    )


def _section(name: str, options: dict[str, str]) -> str:
    lines = [f"[{name}]", *(f"{key} = {value}" for key, value in options.items()), ""]
    return "\n".join(lines) + "\n"
