"""`FilterFunction`: which records go on."""

from sage.dataflow.function.transform import FilterFunction

__all__ = ["FilterFunction"]
