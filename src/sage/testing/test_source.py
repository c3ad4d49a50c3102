"""`TestSource`: a source that fails, ends or falls silent where the test says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sage.common.errors import SageError
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader


class InjectedFaultError(SageError):
    """The fault that `TestSource.ABORT` stands for."""


@dataclass(eq=False)
class _Abort:
    """Reading here fails, once: the next attempt passes it."""

    happened: bool = False


@dataclass(frozen=True)
class _Eof:
    """The input ends here; an attempt that continues from there reads what is behind."""


@dataclass(frozen=True)
class _Pause:
    """Nothing comes until the clock has moved on by so many seconds."""

    seconds: float


class TestSource(Source[Any]):
    """Gives the records of a list, between which faults are written as values.

    * `TestSource.ABORT()`: `read_batch` raises `InjectedFaultError`; only once for each such
      value, so that the next attempt passes it. (It remembers that in this process.)
    * `TestSource.EOF()`: the input ends; an attempt restored from a position taken then continues
      behind it.
    * `TestSource.PAUSE(seconds)`: nothing comes until the job's clock has moved on.

    A position is an index of the list.

    Args:
        records: The records and the faults.
        batch_size: How many records at most come at once; 1 makes every record a batch, so that a
            checkpoint may fall between any two.

    Examples:
        >>> from sage.testing import StandaloneContext
        >>> source = TestSource(["a", TestSource.ABORT(), "b"])
        >>> reader = source.create_reader({"": None}, StandaloneContext())
        >>> reader.read_batch(10)
        ['a']
        >>> position = reader.snapshot()
        >>> reader.read_batch(10)
        Traceback (most recent call last):
        ...
        sage.testing.test_source.InjectedFaultError: TestSource: the fault at index 1
        >>> source.create_reader(position, StandaloneContext()).read_batch(10)
        ['b']
    """

    __test__ = False  # it is no test case, whatever its name says to pytest

    bounded = True

    ABORT: ClassVar[type[_Abort]] = _Abort
    EOF: ClassVar[type[_Eof]] = _Eof
    PAUSE: ClassVar[type[_Pause]] = _Pause

    def __init__(self, records: Iterable[Any], batch_size: int = 1) -> None:
        self.records = list(records)
        self.batch_size = batch_size

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[Any]:
        """Open a reader that begins at an index."""
        return _Reader(self, splits[""] or 0, context)


class _Reader(SourceReader[Any]):
    def __init__(self, source: TestSource, position: int, context: SourceContext) -> None:
        self._records = source.records
        self._batch_size = source.batch_size
        self._next = position
        self._context = context
        self._pause_ends_ms: int | None = None

    def read_batch(self, max_records: int) -> list[Any] | None:
        """Return the records before the next fault; at a fault, do what it says."""
        while not (batch := self._take(min(max_records, self._batch_size))):
            if self._next == len(self._records):
                return None
            fault = self._records[self._next]
            if isinstance(fault, _Pause) and not self._pause_is_over(fault):
                return []
            self._next += 1
            if isinstance(fault, _Eof):
                return None
            if isinstance(fault, _Abort):
                self._fail_once(fault)
        return batch

    def _take(self, count: int) -> list[Any]:
        batch: list[Any] = []
        for value in self._records[self._next : self._next + count]:
            if isinstance(value, _Abort | _Eof | _Pause):
                break
            batch.append(value)
        self._next += len(batch)
        return batch

    def _fail_once(self, fault: _Abort) -> None:
        if not fault.happened:
            fault.happened = True
            raise InjectedFaultError(f"TestSource: the fault at index {self._next - 1}")

    def _pause_is_over(self, pause: _Pause) -> bool:
        now_ms = self._context.now_ms()
        if self._pause_ends_ms is None:
            self._pause_ends_ms = now_ms + round(pause.seconds * 1000)
        if now_ms < self._pause_ends_ms:
            return False
        self._pause_ends_ms = None
        return True

    def snapshot(self) -> dict[str, Any]:
        """Return the index of the next value."""
        return {"": self._next}
