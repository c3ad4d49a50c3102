"""`BaseFunction`, the base of all functions."""

from sage.dataflow.function.base import BaseFunction

__all__ = ["BaseFunction"]
