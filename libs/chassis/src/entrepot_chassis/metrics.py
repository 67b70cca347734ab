"""Prometheus metrics under one prefix; each lives beside the code that counts."""

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

_PREFIX = "entrepot_"


def counter(name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(_checked(name), doc, labels)


def gauge(name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(_checked(name), doc, labels)


def histogram(
    name: str, doc: str, labels: Sequence[str] = (), *, buckets: Sequence[float] | None = None
) -> Histogram:
    if buckets is None:
        return Histogram(_checked(name), doc, labels)
    return Histogram(_checked(name), doc, labels, buckets=buckets)


def _checked(name: str) -> str:
    assert name.startswith(_PREFIX), f"metric names begin with {_PREFIX}: {name}"
    return name
