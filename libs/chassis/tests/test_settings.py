import pickle

import msgspec
import pytest
from msgspec import Struct

from entrepot_chassis import settings
from entrepot_chassis.ports import Misconfigured


class Shape(Struct, frozen=True, kw_only=True):
    nats_url: str
    token: settings.Secret
    pool_max: int = 8
    drain_s: float = 20.0
    verify: bool = False
    labels: tuple[str, ...] = ()
    limits: dict[str, int] = {}
    nkey_file: str | None = None
    spare: settings.Secret | None = None


def load(**values: str) -> Shape:
    return settings.load(Shape, prefix="E_", environ={"HOME": "/", **values})


def test_text_becomes_the_type_of_the_field():
    got = load(
        E_NATS_URL="nats://x",
        E_TOKEN="t",
        E_POOL_MAX="3",
        E_DRAIN_S="1.5",
        E_VERIFY="true",
        E_LABELS="a, b",
        E_LIMITS='{"x": 1}',
        E_NKEY_FILE="/k",
        E_SPARE="s",
    )
    assert (got.pool_max, got.drain_s, got.verify, got.labels) == (3, 1.5, True, ("a", "b"))
    assert (got.limits, got.nkey_file) == ({"x": 1}, "/k")
    assert got.spare is not None
    assert (got.token.reveal(), got.spare.reveal()) == ("t", "s")


def test_everything_wrong_is_reported_together_with_the_names():
    with pytest.raises(settings.SettingsError) as caught:
        load(E_POOL_MAX="many", E_LIMITS="{", E_POOLMAX="3", E_TOKEN="")
    assert set(caught.value.problems) == {
        "E_NATS_URL",
        "E_TOKEN",
        "E_POOL_MAX",
        "E_LIMITS",
        "E_POOLMAX",
    }
    assert caught.value.problems["E_POOLMAX"] == "unknown setting"
    assert isinstance(caught.value, Misconfigured)


def test_an_absent_optional_setting_keeps_its_default():
    assert load(E_NATS_URL="n", E_TOKEN="t").pool_max == 8


def test_checks_over_several_fields_are_settings_errors_too():
    class Pair(Struct, frozen=True, kw_only=True):
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low must not exceed high")

    with pytest.raises(settings.SettingsError, match="low must not exceed high"):
        settings.load(Pair, prefix="E_", environ={"E_LOW": "2", "E_HIGH": "1"})


def test_a_secret_shows_itself_nowhere():
    secret = settings.Secret("hunter2")
    got = load(E_NATS_URL="n", E_TOKEN="hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {got!r}"
    with pytest.raises(TypeError):
        msgspec.json.encode(got)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
