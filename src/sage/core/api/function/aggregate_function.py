"""`AggregateFunction`: folds the records of a key."""

from sage.dataflow.function.keyed import AggregateFunction

__all__ = ["AggregateFunction"]
