"""Two zones and their stores, made with the command line."""

from pathlib import Path

from demo.cli import CliRefused
from demo.scene import BUCKET, ZONES, Mismatch, Scene, same


def make(scene: Scene) -> None:
    """S3 for the region, a directory image store in the first zone, a pool in each zone."""
    scene.show.head("zones and stores (entrepot zone create, store add, setting set)")
    for zone in ZONES:
        scene.cli("zone", "create", zone)
    scene.show.say(f"zones {', '.join(ZONES)}")
    _add_s3(scene)
    _second_provider_is_refused(scene)
    scene.cli("setting", "set", "image-store.mixing", "any")
    scene.show.say("setting image-store.mixing = any")
    _add_directory(scene, "shelf", scene.places.images, role="image", zone=ZONES[0])
    for zone, path in scene.places.pools.items():
        _add_directory(scene, f"pool-{zone}", path, role="primary", zone=zone)


def _add_s3(scene: Scene) -> None:
    swift = scene.swift
    swift.make_bucket(BUCKET)
    settings = {"endpoint": swift.endpoint, "region": swift.region, "bucket": BUCKET}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    secrets = ("--secret-env", "access_key=S3_KEY", "--secret-env", "secret_key=S3_SECRET")
    scene.cli(
        *("store", "add", "s3", "--name", "objects", *words, *secrets, "--wait"),
        env={"S3_KEY": swift.access_key, "S3_SECRET": swift.secret_key},
    )
    scene.show.say("image store objects (s3, region-wide) probed and up")


def _second_provider_is_refused(scene: Scene) -> None:
    """The design's rule stands until an administrator lifts it."""
    try:
        _add_directory(scene, "shelf", scene.places.images, role="image", zone=ZONES[0])
    except CliRefused as refused:
        same("refusal of a second provider", refused.code, "provider_mixing")
        scene.show.say(f"second provider refused: {refused.message}")
    else:
        raise Mismatch("a second image store provider was accepted against the default rule")


def _add_directory(scene: Scene, name: str, path: Path, *, role: str, zone: str) -> None:
    scene.cli(
        *("store", "add", "file", "--name", name, "--role", role, "--zone", zone),
        *("--set", f"path={path}", "--wait"),
    )
    scene.show.say(f"{role} store {name} (directory, zone {zone}) probed and up")
