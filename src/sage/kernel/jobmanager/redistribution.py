"""Who gets what of the state of an operator when it has other subtasks than before.

What belongs to keys goes to those who own their key groups now: a new subtask gets the parts of all old
ones that had a key group of its own, and a `Share` by which it picks its keys out of them. The rest is
small and settled here, name by name. Pure: nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage.common.errors import ConfigError
from sage.common.suggest import shorten
from sage.dataflow.graph.stream_graph import StreamNode
from sage.dataflow.key_group import MIN_MAX_PARALLELISM, WHOLE, Share, group_range
from sage.dataflow.operator.batch_wise import WriteSink
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.state.declarations import declared_states
from sage.dataflow.state.operator_state import OperatorListState, split_lists, union_lists
from sage.dataflow.time import MIN_WATERMARK
from sage.kernel.runtime.task.restored_state import RestoredState

_OF_PARTS: Final[tuple[str, ...]] = ("tables", "live", "store")
"""What the operator itself takes its share of; all else is settled here."""


@dataclass(frozen=True)
class SavedState:
    """What one subtask has said about its operator.

    Attributes:
        chain: A full part, then what changed; empty if it had nothing to say.
    """

    chain: Sequence[dict[str, Any]] = ()

    def last(self, name: str) -> Any:
        """Return what the newest part says about `name`; None if it says nothing."""
        for content in reversed(self.chain):
            if name in content:
                return content[name]
        return None

    @property
    def has_ended(self) -> bool:
        """Whether it had put out what goes out at the end of its input."""
        return bool(self.last("ended"))

    @property
    def watermark(self) -> int:
        """How far its event time had come."""
        said: int | None = self.last("watermark")
        return MIN_WATERMARK if said is None else said

    def part(self) -> list[dict[str, Any]]:
        """Return what the operator itself takes its share of."""
        pieces = [{n: content[n] for n in _OF_PARTS if n in content} for content in self.chain]
        return [piece for piece in pieces if piece]


@dataclass(frozen=True)
class Target:
    """An operator as the program has it now.

    Attributes:
        node: The operator.
        parallelism: How many subtasks it has.
        max_parallelism: How many key groups there are.
        keyed: Whether its records have keys.
        splits: Of a source, the splits that each subtask reads; None: the one subtask reads all.
    """

    node: StreamNode
    parallelism: int = 1
    max_parallelism: int = MIN_MAX_PARALLELISM
    keyed: bool = False
    splits: Sequence[Sequence[str]] | None = None


@dataclass(frozen=True)
class _Move:
    """The way of one operator's state from the subtasks of before to those of now.

    Attributes:
        saved: What those of before have said.
        target: The operator as it is now.
        moved: Whether anything goes to another subtask than before, of whatever operator.
        all_ended: Whether all of before had put out what goes out at the end.
    """

    saved: Sequence[SavedState]
    target: Target
    moved: bool
    all_ended: bool

    @property
    def stays(self) -> bool:
        """Whether each subtask goes on with what it had itself."""
        count = self.target.parallelism
        same = len(self.saved) == count
        return same and (count == 1 or self.target.keyed or not self.moved)

    def counts(self, part: SavedState) -> bool:
        """Say whether a part is gone on from: what has ended among others has put all of it out."""
        return not part.has_ended or self.all_ended or not self.moved

    def counting(self) -> list[SavedState]:
        """Return the parts that are gone on from."""
        return [part for part in self.saved if self.counts(part)]


def redistribute(
    saved: Sequence[SavedState], target: Target, *, moved: bool
) -> list[RestoredState]:
    """Say what each subtask of an operator finds.

    Args:
        saved: What each subtask of before has said, by its index.
        target: The operator as it is now.
        moved: Whether anything goes to another subtask than before, of whatever operator. What had
            ended then counts as ended only where all had.

    Returns:
        What each subtask finds now, by its index.

    Raises:
        ConfigError: the sink does not say what each of its writers begins with.
        StateError: the sink has no way to say it.

    Examples:
        >>> from sage.dataflow.operator.keyed import Distinct
        >>> node = StreamNode(1, Distinct(), (), "seen", "seen", 1, "fail")
        >>> saved = [SavedState([{"tables": {"seen": {"a": 1}}}]), SavedState()]
        >>> [found] = redistribute(saved, Target(node, keyed=True), moved=True)
        >>> found.chains("tables")
        [[{'seen': {'a': 1}}]]
    """
    move = _Move(saved, target, moved, all(part.has_ended for part in saved))
    said: list[dict[str, Any]] = [{} for _ in range(target.parallelism)]
    for name, rule in _RULES.items():
        for mine, value in zip(said, rule(move), strict=True):
            if value is not None:
                mine[name] = value
    found = zip(_parts(move), _shares(move), said, _uncommitted(move), strict=True)
    return [RestoredState(*one) for one in found]


def _shares(move: _Move) -> list[Share]:
    target = move.target
    if move.stays:
        return [WHOLE] * target.parallelism
    return [
        Share(index, target.parallelism, target.max_parallelism, target.keyed)
        for index in range(target.parallelism)
    ]


def _parts(move: _Move) -> list[list[list[dict[str, Any]]]]:
    if move.stays:
        return [[part.part()] if move.counts(part) else [] for part in move.saved]
    numbered = [(i, part) for i, part in enumerate(move.saved) if move.counts(part)]
    numbered.sort(key=lambda pair: pair[1].watermark)
    return [
        [part.part() for before, part in numbered if _have_groups_in_common(move, before, index)]
        for index in range(move.target.parallelism)
    ]


def _have_groups_in_common(move: _Move, before: int, now: int) -> bool:
    """Say whether a subtask of before may have keys of one of now; if there are no keys, always."""
    target = move.target
    if not target.keyed or len(move.saved) == 1 or target.parallelism == 1:
        return True
    old = group_range(before, target.max_parallelism, len(move.saved))
    new = group_range(now, target.max_parallelism, target.parallelism)
    return max(old.start, new.start) < min(old.stop, new.stop)


def _uncommitted(move: _Move) -> list[list[dict[int, Any]]]:
    """Let each pending commit be done by the subtask of its number, as long as there is one.

    So nobody prepares anything under a name that somebody else is still to commit.
    """
    count = move.target.parallelism
    found: list[list[dict[int, Any]]] = [[] for _ in range(count)]
    for index, part in enumerate(move.saved):
        if waiting := part.last("uncommitted"):
            found[index % count].append(dict(waiting))
    return found


# ---- one value for each subtask, None where there is nothing to say


def _ended(move: _Move) -> list[bool | None]:
    """A source has ended when all of its subtasks have: their positions are then of no more use."""
    is_source = isinstance(move.target.node.operator, ReadSource)
    if move.moved or is_source or not move.stays:
        return [move.all_ended or None] * move.target.parallelism
    return [part.has_ended or None for part in move.saved]


def _watermarks(move: _Move) -> list[int | None]:
    if move.stays and not move.moved:
        return [part.last("watermark") for part in move.saved]
    least = min(part.watermark for part in move.counting())
    return [None if least == MIN_WATERMARK else least] * move.target.parallelism


def _in_loop(move: _Move) -> list[Any]:
    """The head of a loop has no keys of its own: any subtask can go on with any batch."""
    if move.stays:
        return [part.last("in_loop") for part in move.saved]
    batches = [batch for part in move.saved for batch in part.last("in_loop") or ()]
    count = move.target.parallelism
    return [batches[index::count] or None for index in range(count)]


def _positions(move: _Move) -> list[Any]:
    """Deal positions out as splits are; those of splits that are not there any more, in turn."""
    positions: dict[str, Any] = {}
    for part in move.saved:
        positions |= part.last("reader") or {}
    splits = move.target.splits or [()] * move.target.parallelism
    known = {name for names in splits for name in names}
    others = [name for name in positions if name not in known]
    return [
        {name: positions[name] for name in (*names, *others[i :: len(splits)]) if name in positions}
        or None
        for i, names in enumerate(splits)
    ]


def _writers(move: _Move) -> list[Any]:
    states = [part.last("writer") for part in move.saved]
    if move.stays:
        return states
    operator, count = move.target.node.operator, move.target.parallelism
    if not isinstance(operator, WriteSink) or operator.sink is None:
        return [None] * count
    found = list(operator.sink.redistribute(states, count))
    if len(found) != count:
        raise ConfigError(
            f"redistribute() of {move.target.node.name} returns a state for each of {count} "
            f"subtasks, not {shorten(found)}"
        )
    return found


def _operator_state(move: _Move) -> list[Any]:
    """Everybody has the broadcast state; lists are dealt out, or given to all, as declared."""
    count = move.target.parallelism
    stores = [store for part in move.counting() if (store := part.last("store")) is not None]
    if move.stays or not stores:
        return [None] * count
    names = dict.fromkeys(name for store in stores for name in store["lists"])
    unions = _union_lists(move.target.node)
    dealt: dict[str, Sequence[list[Any]]] = {}
    for name in names:
        items = [store["lists"].get(name, []) for store in stores]
        dealt[name] = (union_lists if name in unions else split_lists)(items, count)
    return [
        {"broadcast": stores[0]["broadcast"], "lists": {n: dealt[n][index] for n in names}}
        for index in range(count)
    ]


def _union_lists(node: StreamNode) -> set[str]:
    """Return the names of the lists of which each subtask wants all items."""
    declared = [declared_states(spec.function_class) for spec in node.operator.functions]
    return {
        name
        for states in declared
        for name, state in states.items()
        if isinstance(state, OperatorListState) and state.rescaled == "union"
    }


_RULES: Final[Mapping[str, Callable[[_Move], Sequence[Any]]]] = {
    "ended": _ended,
    "watermark": _watermarks,
    "in_loop": _in_loop,
    "reader": _positions,
    "writer": _writers,
    "operator_state": _operator_state,
}
