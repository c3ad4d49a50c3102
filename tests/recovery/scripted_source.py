"""A source that fails, and takes checkpoints, where its script says."""

from dataclasses import dataclass

from sage.dataflow.function.source import Source, SourceReader
from sage.testing import InjectedFaultError


@dataclass(frozen=True)
class Fail:
    """Reading here fails the first `times` times that it is come to."""

    times: int = 1


@dataclass(frozen=True)
class Checkpoint:
    """Nothing comes until a checkpoint that begins here is done, well or not."""


class ScriptedSource(Source):
    """Gives the values of a script one by one; a position is an index of it.

    Args:
        script: Values, and what is to happen between them.
        take_checkpoint: Asks for a checkpoint; returns a future.
    """

    def __init__(self, script, take_checkpoint=None):
        self.script = list(script)
        self.take_checkpoint = take_checkpoint
        self.failures = {}
        self.attempts = 0

    def create_reader(self, splits, context):
        self.attempts += 1
        return _Reader(self, splits[""] or 0, context)


class _Reader(SourceReader):
    def __init__(self, source, position, context):
        self._source = source
        self._next = position
        self._wake = context.wake
        self._waiting = None

    def read_batch(self, max_records):
        if self._waiting is not None and not self._waiting.done():
            return []
        self._waiting = None
        script = self._source.script
        if self._next == len(script):
            return None
        value = script[self._next]
        if isinstance(value, Fail):
            self._fail(value)
        self._next += 1
        if isinstance(value, Checkpoint):
            self._waiting = self._source.take_checkpoint()
            self._waiting.add_done_callback(lambda _: self._wake())
        return [] if isinstance(value, (Fail, Checkpoint)) else [value]

    def _fail(self, fault):
        failures = self._source.failures
        failures[self._next] = failures.get(self._next, 0) + 1
        if failures[self._next] <= fault.times:
            raise InjectedFaultError(f"the fault at index {self._next}")

    def snapshot(self):
        return {"": self._next}
