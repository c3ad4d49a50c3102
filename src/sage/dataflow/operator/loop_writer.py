"""Writes the source text of a fused loop, and remembers which operator each line belongs to.

A run of record operators becomes one Python function over a batch, in which the users' functions
are called directly. For `map(parse).filter(valid).sink(write)` it reads:

    def fused(values, f1=f1, f2=f2, f3=f3, counts=counts):
        n4 = 0
        try:
            for v0 in values:
                v5 = f1(v0)                                  # map parse
                if not f2(v5):                               # filter valid
                    n4 += 1
                else:
                    f3(v5)                                   # sink write
        finally:
            counts[2] += n4

Only this module knows how such text is laid out. It is pure: it neither compiles nor runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

FIRST_VALUE = "v0"


@dataclass(frozen=True)
class Flow:
    """The names of the local variables that hold the record at some point of the loop."""

    value: str
    key: str | None = None
    timestamp: str | None = None


@dataclass(frozen=True)
class LineOrigin:
    """What a line of generated code does, so that an exception can be told in the user's words.

    Attributes:
        node: The id of the operator.
        record: The variable that holds the operator's input.
        key: The variable that holds the key, on lines that look it up in a table.
    """

    node: int
    record: str
    key: str | None = None


class LoopWriter:
    """Collects the lines of one fused function.

    Names are unique in the function, so a variable never changes its meaning and the input of a
    failing operator can be read from the frame.

    Attributes:
        origins: For lines that call users' functions, by number, which operator they belong to.
        bindings: What the names that are not made in the function stand for.
        loops: How many loops the next line is inside of.
        operators: How many operators the next line is inside of.
        puts: Whether lines have come, since it was last set back, that let records wait to go on.
    """

    def __init__(self) -> None:
        self.origins: dict[int, LineOrigin] = {}
        self.bindings: dict[str, Any] = {}
        self.loops = 1
        self.operators = 0
        self.puts = False
        self._body: list[tuple[str, LineOrigin | None]] = []
        self._prologue: list[str] = []
        self._epilogue: list[str] = []
        self._counters: dict[int, str] = {}
        self._names = 0
        self._depth = 0

    @property
    def depth(self) -> int:
        """How many blocks the next line is inside of."""
        return self._depth

    def fresh(self, hint: str) -> str:
        """Return a local name that is not in use."""
        self._names += 1
        return f"{hint}{self._names}"

    def bind(self, hint: str, value: Any) -> str:
        """Make `value` a local of the function and return its name."""
        for name, bound in self.bindings.items():
            if bound is value and name.startswith(hint):
                return name
        name = self.fresh(hint)
        self.bindings[name] = value
        return name

    def counter(self, slot: int) -> str:
        """Return the local that counts what is added to `counts[slot]` when the function ends."""
        if slot not in self._counters:
            self._counters[slot] = self.fresh("n")
        return self._counters[slot]

    def line(self, text: str, origin: LineOrigin | None = None) -> None:
        """Append a line at the present depth."""
        self._body.append(("    " * self._depth + text, origin))

    @contextmanager
    def block(self, header: str, origin: LineOrigin | None = None) -> Iterator[None]:
        """Append `header` and put what follows inside of it."""
        self.line(header, origin)
        depth = self._depth
        self._depth += 1
        yield
        self._close_block()
        self._depth = depth

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Come back to the present depth at the end, whatever was opened in between."""
        before = self._depth, self.loops, self.operators
        self.operators += 1
        yield
        self._close_block()
        self._depth, self.loops, self.operators = before

    def _close_block(self) -> None:
        """Put `pass` into a block that has stayed empty."""
        if self._body and self._body[-1][0].endswith(":"):
            self.line("pass")

    def descend(self, header: str) -> None:
        """Append `header` and put all that follows in the enclosing `scope` inside of it."""
        self.line(header)
        self._depth += 1

    def first(self, text: str) -> None:
        """Append a line that runs before the loop."""
        self._prologue.append(text)

    def last(self, text: str) -> None:
        """Append a line that runs after the loop, unless it raised."""
        if text not in self._epilogue:
            self._epilogue.append(text)

    def source(self, name: str, counts: str) -> str:
        """Return the text of the function `name(values)`; `counts` is the bound list of counters."""
        lines: list[str] = [
            f"def {name}(values, {', '.join(f'{n}={n}' for n in self.bindings)}):",
            *(f"    {local} = 0" for local in self._counters.values()),
            *(f"    {text}" for text in self._prologue),
            "    try:",
            f"        for {FIRST_VALUE} in values:",
        ]
        self.origins = {}
        for text, origin in self._body or [("pass", None)]:
            lines.append(" " * 12 + text)
            if origin is not None:
                self.origins[len(lines)] = origin
        lines.append("    finally:")
        lines += [f"        {counts}[{s}] += {n}" for s, n in self._counters.items()] or [
            "        pass"
        ]
        lines += [f"    {text}" for text in self._epilogue]
        return "\n".join(lines) + "\n"
