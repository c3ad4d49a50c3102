"""The figures of operators and of their subtasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from sage.dataflow.time import MAX_WATERMARK
from sage.kernel.jobmanager.checkpoint_statistics import SubtaskCheckpoint
from sage.kernel.runtime.exchange.figures import SlotFigures
from sage.kernel.runtime.task.counters import RecordCounts


@dataclass(frozen=True, kw_only=True)
class SubtaskMetrics(RecordCounts):
    """What one subtask of an operator has done so far: its counts, and how it is now.

    Attributes:
        subtask: Which of the operator's subtasks, from 0.
        slot: What the slot that runs it does with its time.
        watermark: How far event time has come, in milliseconds since the Unix epoch: of what comes
            in, or of what goes out for `assign_timestamps`. `MAX_WATERMARK` where the input has ended;
            None where there is no event time, none yet, or nothing in the slot that needs it.
        watermark_lag_ms: How far that is behind the job's clock, in milliseconds; None where there is
            no watermark, the input has ended, or the job is done.
        state_bytes: How much state of it the last checkpoint holds, in bytes.
        checkpoint: The part of its slot in the last checkpoint that completed; None if none has.
        gauges: What a source says of itself, such as `"lag"`: records that are there and not read.
    """

    subtask: int = 0
    slot: SlotFigures = field(default_factory=SlotFigures)
    watermark: int | None = None
    watermark_lag_ms: int | None = None
    state_bytes: int = 0
    checkpoint: SubtaskCheckpoint | None = None
    gauges: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OperatorMetrics(RecordCounts):
    """What an operator has done so far: the sums over its subtasks.

    Attributes:
        name: The operator's name.
        uid: The operator's identity.
        watermark: How far event time has come in the subtask that is furthest behind.
        watermark_lag_ms: How far that is behind the job's clock, in milliseconds.
        state_bytes: How much state of it the last checkpoint holds, in bytes.
        subtasks: Each of its subtasks.
        gauges: What a source says of itself, such as `"lag"`: records that are there and not read.
    """

    name: str
    uid: str
    watermark: int | None = None
    watermark_lag_ms: int | None = None
    state_bytes: int = 0
    subtasks: tuple[SubtaskMetrics, ...] = ()
    gauges: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, uid: str, subtasks: Sequence[SubtaskMetrics]) -> OperatorMetrics:
        """Return the figures of an operator that has these subtasks.

        Examples:
            >>> parts = [SubtaskMetrics(records_in=2, watermark=5), SubtaskMetrics(records_in=1)]
            >>> counted = OperatorMetrics.of("map", "map", parts)
            >>> counted.records_in, counted.watermark
            (3, 5)
        """
        marks = [part.watermark for part in subtasks if part.watermark is not None]
        lags = [part.watermark_lag_ms for part in subtasks if part.watermark_lag_ms is not None]
        return cls(
            name=name,
            uid=uid,
            watermark=min(marks, default=None),
            watermark_lag_ms=max(lags, default=None),
            state_bytes=sum(part.state_bytes for part in subtasks),
            subtasks=tuple(subtasks),
            gauges=_sums([part.gauges for part in subtasks]),
            **{
                what: sum(getattr(part, what) for part in subtasks)
                for what in RecordCounts.__dataclass_fields__
            },
        )


@dataclass(frozen=True)
class SlotReading:
    """What is known of a slot at some moment.

    Attributes:
        figures: What it does with its time.
        counts: The counts of its operators.
        watermarks: How far event time has come for them, in milliseconds.
        gauges: What its sources say of themselves.
        now_ms: The time of day, which watermarks are behind; None: the job is done.
        checkpoint: Its part in the last checkpoint.
    """

    figures: SlotFigures
    counts: Mapping[int, RecordCounts]
    watermarks: Mapping[int, int]
    gauges: Mapping[int, Mapping[str, int]]
    now_ms: int | None
    checkpoint: SubtaskCheckpoint | None = None

    def subtask(self, node: int, uid: str, index: int) -> SubtaskMetrics:
        """Return the figures of the subtask of an operator that this slot runs."""
        mark = self.watermarks.get(node)
        return SubtaskMetrics(
            **asdict(self.counts[node]),
            subtask=index,
            slot=self.figures,
            watermark=mark,
            watermark_lag_ms=_lag(mark, self.now_ms),
            state_bytes=0 if self.checkpoint is None else self.checkpoint.sizes.get(uid, 0),
            checkpoint=self.checkpoint,
            gauges=self.gauges.get(node, {}),
        )


def _sums(gauges: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for part in gauges for name in part)
    return {name: sum(part.get(name, 0) for part in gauges) for name in names}


def _lag(watermark: int | None, now_ms: int | None) -> int | None:
    if watermark is None or watermark == MAX_WATERMARK or now_ms is None:
        return None
    return now_ms - watermark
