"""`ReduceFunction`: joins two records of one key."""

from sage.dataflow.function.keyed import ReduceFunction

__all__ = ["ReduceFunction"]
