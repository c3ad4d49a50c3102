"""The figures of a job for Prometheus; needs `prometheus-client` (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sage.dataflow.time import MAX_WATERMARK
from sage.kernel.jobmanager.checkpoint_statistics import CheckpointFigures
from sage.kernel.jobmanager.job import Job
from sage.kernel.jobmanager.job_metrics import JobMetrics
from sage.kernel.jobmanager.job_state import JobStatus
from sage.kernel.jobmanager.operator_metrics import SubtaskMetrics

Sample = tuple[tuple[str, ...], float]

_COUNTED: Final = {
    "records_in": ("records_in", "Records that came in."),
    "records_out": ("records_out", "Records that went out."),
    "errors": ("errors", "Records that failed and were skipped or sent to the dead letters."),
    "dropped": ("dropped_records", "Records that a filter or distinct held back."),
    "unrouted": ("unrouted_records", "Records put out to a side output that nobody reads."),
    "late": ("late_records", "Records that came too late for their windows or their join."),
    "bytes_in": ("bytes_in", "Bytes that came from other slots."),
    "bytes_out": ("bytes_out", "Bytes that went to other slots."),
}
_TIMES: Final = {
    "busy": "Seconds in which the slot worked.",
    "idle": "Seconds in which the slot had nothing to do.",
    "blocked": "Seconds in which the slot waited for room: back-pressure.",
    "aligning": "Seconds in which the slot waited for what comes before a checkpoint.",
}
_LAST: Final[dict[str, tuple[str, Callable[[CheckpointFigures], float]]]] = {
    "duration_seconds": ("How long the last checkpoint took.", lambda last: last.seconds),
    "size_bytes": ("Bytes of state that the last checkpoint stands for.", lambda last: last.size),
    "written_bytes": ("Bytes written for the last checkpoint.", lambda last: last.bytes),
    "alignment_seconds": (
        "For how long the slowest slot waited for what comes before the last checkpoint.",
        lambda last: last.alignment,
    ),
    "in_flight_bytes": (
        "Bytes of records that were on their way between slots at the last checkpoint.",
        lambda last: last.in_flight_bytes,
    ),
    "completed_timestamp_seconds": (
        "When the last checkpoint completed, in seconds since the Unix epoch.",
        lambda last: last.ended_ms / 1000,
    ),
}


class JobCollector(Collector):
    """Gives the figures of a job as they are when Prometheus asks; none while there is no job.

    Each metric has a label `job_name`, as those of Flink do: Prometheus itself sets `job`. Those of
    operators have `operator` and `subtask` besides, those of slots `slot`.

    * `sage_operator_…`: `records_in_total`, `records_out_total`, `errors_total`,
      `dropped_records_total`, `unrouted_records_total`, `late_records_total`, `bytes_in_total`,
      `bytes_out_total`,
      `watermark_timestamp_seconds`, `watermark_lag_seconds`, `state_bytes`
    * `sage_slot_…`: `busy_seconds_total`, `idle_seconds_total`, `blocked_seconds_total`,
      `aligning_seconds_total`: their `rate()` is the share of time; `bytes_sent_total`
    * `sage_checkpoint_…`: `completed_total`, `failed_total`; of the last one `last_duration_seconds`,
      `last_size_bytes`, `last_written_bytes`, `last_alignment_seconds`, `last_in_flight_bytes`,
      `last_completed_timestamp_seconds`
    * `sage_job_…`: `status` (1 for the `status` it is in, 0 for the others), `running_seconds`,
      `restarts_total`, `records_in_total`

    Counters of operators and slots begin at 0 again when a job over several processes is started
    again; `rate()` knows how to deal with that.

    Args:
        job: Returns the job; None: there is none.
    """

    def __init__(self, job: Callable[[], Job | None]) -> None:
        self._job = job

    def describe(self) -> Iterable[Metric]:
        """Yield nothing: what there is depends on the job."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        job = self._job()
        if job is None:
            return
        metrics = job.metrics
        yield from _job(job, metrics)
        yield from _operators(job.name, metrics)
        yield from _slots(job.name, metrics)
        yield from _checkpoints(job.name, metrics)


def _job(job: Job, metrics: JobMetrics) -> Iterator[Metric]:
    labels, name = ("job_name",), (job.name,)
    states = [((job.name, str(status)), float(job.status is status)) for status in JobStatus]
    yield _gauge("job_status", "1 for the status of the job.", ("job_name", "status"), states)
    seconds = [(name, metrics.seconds)]
    yield _gauge("job_running_seconds", "For how long the job has been running.", labels, seconds)
    restarts = [(name, float(metrics.restarts))]
    yield _counter("job_restarts", "How often the job was started again.", labels, restarts)
    records = [(name, float(metrics.records_in))]
    yield _counter("job_records_in", "Records of the sources that were processed.", labels, records)


def _operators(job: str, metrics: JobMetrics) -> Iterator[Metric]:
    labels = ("job_name", "operator", "subtask")
    subtasks = [
        ((job, operator.name, str(subtask.subtask)), subtask)
        for operator in metrics.operators.values()
        for subtask in operator.subtasks
    ]
    for what, (name, told) in _COUNTED.items():
        counts = [(values, float(getattr(subtask, what))) for values, subtask in subtasks]
        yield _counter(f"operator_{name}", told, labels, counts)
    for name, told, read in _GAUGES:
        found = [(values, read(subtask)) for values, subtask in subtasks]
        samples = [(values, value) for values, value in found if value is not None]
        yield _gauge(f"operator_{name}", told, labels, samples)


def _watermark_seconds(subtask: SubtaskMetrics) -> float | None:
    if subtask.watermark is None or subtask.watermark == MAX_WATERMARK:
        return None
    return subtask.watermark / 1000


def _lag_seconds(subtask: SubtaskMetrics) -> float | None:
    return None if subtask.watermark_lag_ms is None else subtask.watermark_lag_ms / 1000


def _state_bytes(subtask: SubtaskMetrics) -> float | None:
    return None if subtask.checkpoint is None else float(subtask.state_bytes)


_GAUGES: Final = (
    (
        "watermark_timestamp_seconds",
        "How far event time has come, in seconds since the Unix epoch.",
        _watermark_seconds,
    ),
    ("watermark_lag_seconds", "How far event time is behind the clock.", _lag_seconds),
    ("state_bytes", "Bytes of state that the last checkpoint holds.", _state_bytes),
)


def _slots(job: str, metrics: JobMetrics) -> Iterator[Metric]:
    labels = ("job_name", "slot")
    slots = [((job, str(slot.number)), slot) for slot in metrics.slots]
    for kind, told in _TIMES.items():
        seconds = [(values, float(getattr(slot, kind))) for values, slot in slots]
        yield _counter(f"slot_{kind}_seconds", told, labels, seconds)
    sent = [(values, float(slot.bytes_sent)) for values, slot in slots]
    yield _counter("slot_bytes_sent", "Bytes sent to other slots.", labels, sent)


def _checkpoints(job: str, metrics: JobMetrics) -> Iterator[Metric]:
    labels, values, statistics = ("job_name",), (job,), metrics.checkpoints
    completed = [(values, float(statistics.completed))]
    yield _counter("checkpoint_completed", "Checkpoints that completed.", labels, completed)
    failed = [(values, float(statistics.failed))]
    yield _counter("checkpoint_failed", "Checkpoints that did not.", labels, failed)
    last = statistics.last
    for name, (told, read) in _LAST.items():
        samples = [] if last is None else [(values, float(read(last)))]
        yield _gauge(f"checkpoint_last_{name}", told, labels, samples)


def _counter(name: str, told: str, labels: tuple[str, ...], samples: Sequence[Sample]) -> Metric:
    family = CounterMetricFamily(f"sage_{name}", told, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, told: str, labels: tuple[str, ...], samples: Sequence[Sample]) -> Metric:
    family = GaugeMetricFamily(f"sage_{name}", told, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
