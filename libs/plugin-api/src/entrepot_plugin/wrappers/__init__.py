"""Layers around a store: `wrap_objects(store, Retrying(policy))`, one inside another as wished.

A wrapped store has the ports and powers of the inner one. Drivers never retry, throttle or count.
"""

from entrepot_plugin.wrappers.faulty import Fault, FaultKind, Faulty
from entrepot_plugin.wrappers.layers import Layer, wrap_objects, wrap_volumes
from entrepot_plugin.wrappers.metered import Metered, MeterSink
from entrepot_plugin.wrappers.retrying import Retrying, RetryPolicy
from entrepot_plugin.wrappers.throttled import Throttled, TokenBucket

__all__ = [
    "Fault",
    "FaultKind",
    "Faulty",
    "Layer",
    "MeterSink",
    "Metered",
    "RetryPolicy",
    "Retrying",
    "Throttled",
    "TokenBucket",
    "wrap_objects",
    "wrap_volumes",
]
