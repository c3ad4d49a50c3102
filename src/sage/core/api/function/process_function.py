"""`ProcessFunction`: records out here and to side outputs."""

from sage.dataflow.function.transform import CoProcessFunction, ProcessContext, ProcessFunction

__all__ = ["CoProcessFunction", "ProcessContext", "ProcessFunction"]
