"""`BatchFunction`: a source function with an end."""

from sage.dataflow.function.source import BatchFunction

__all__ = ["BatchFunction"]
