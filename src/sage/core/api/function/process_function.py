"""`ProcessFunction`: records out here and to side outputs."""

from sage.dataflow.function.broadcast import (
    BroadcastProcessFunction,
    KeyedBroadcastProcessFunction,
)
from sage.dataflow.function.transform import (
    CoProcessFunction,
    KeyedProcessFunction,
    KeylessContext,
    ProcessContext,
    ProcessFunction,
)

__all__ = [
    "BroadcastProcessFunction",
    "CoProcessFunction",
    "KeyedBroadcastProcessFunction",
    "KeyedProcessFunction",
    "KeylessContext",
    "ProcessContext",
    "ProcessFunction",
]
