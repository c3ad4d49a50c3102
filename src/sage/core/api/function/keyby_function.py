"""`KeyByFunction`: which key a record has."""

from sage.dataflow.function.keyed import FieldKeyByFunction, KeyByFunction

__all__ = ["FieldKeyByFunction", "KeyByFunction"]
