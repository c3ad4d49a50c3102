"""Every exception that SAGE raises on purpose, split by cause.

`SageError` is the root, so that `except SageError` catches what the engine says and nothing else.
A class here names *whose move it is*: a `GraphError` is mended in the program, an `OperatorError`
in a function or in the data, a `ConfigError` in the configuration.
"""

from __future__ import annotations


class SageError(Exception):
    """The root of all errors that SAGE raises on purpose."""


class ConfigError(SageError, ValueError):
    """A configuration key or value is not usable."""


class GraphError(SageError):
    """The program describes a graph that cannot run; nothing has been read or written."""


class FunctionError(GraphError, TypeError):
    """What was given as a function of an operator cannot serve as one."""


class SourceError(SageError):
    """A source cannot be opened, read or restored."""


class OperatorError(SageError):
    """A user's function failed; the original exception is chained as `__cause__`.

    Attributes:
        operator: The name of the operator whose function failed.
        phase: What it was doing: `"open"`, `"read"`, `"record"`, `"batch"`, `"end"` (its input had
            ended) or `"close"`.
        record: The record that was being processed; `None` outside of `phase == "record"`.
    """

    def __init__(self, message: str, *, operator: str, phase: str, record: object = None) -> None:
        super().__init__(message)
        self.operator = operator
        self.phase = phase
        self.record = record

    def __reduce__(self) -> tuple[object, ...]:
        state = {"operator": self.operator, "phase": self.phase, "record": self.record}
        return (_rebuild_operator_error, (self.args[0], state))


def _rebuild_operator_error(message: str, state: dict[str, object]) -> OperatorError:
    error = OperatorError(message, operator=str(state["operator"]), phase=str(state["phase"]))
    error.record = state["record"]
    return error


class JobError(SageError):
    """A job did not do what was asked of it."""


class JobCancelledError(JobError):
    """The job was cancelled before it was done."""


class JobTimeoutError(JobError, TimeoutError):
    """The job was not done in time."""


class WorkerLostError(JobError):
    """The process that ran a part of the job has died, or has not been heard of for too long."""


class JobStateError(JobError):
    """The job is in a state from which it cannot do this."""


class StateError(SageError, RuntimeError):
    """State or timers were used where there are none: outside of a keyed function, or before `open`."""


class ServiceError(SageError):
    """A call to a service did not give a result."""


class ServiceCallError(ServiceError, RuntimeError):
    """The service's method raised.

    The original exception is chained as `__cause__` when it could be carried over.

    Attributes:
        service: The name of the service.
        method: The name of the method.
        error_type: The name of the original exception's type, with its module: `"app.NotReady"`.
        error_message: What the original exception said.
        error_traceback: The traceback in the service, formatted.
    """

    def __init__(
        self,
        service: str,
        method: str,
        error_type: str,
        error_message: str,
        error_traceback: str = "",
    ) -> None:
        super().__init__(f"{service}.{method} raised {error_type}: {error_message}")
        self.service = service
        self.method = method
        self.error_type = error_type
        self.error_message = error_message
        self.error_traceback = error_traceback

    def __reduce__(self) -> tuple[object, ...]:
        told = (self.error_type, self.error_message, self.error_traceback)
        return (type(self), (self.service, self.method, *told))


class ServiceTimeoutError(ServiceError, TimeoutError):
    """There was no answer before the deadline of the call."""


class ServiceUnavailableError(ServiceError, RuntimeError):
    """The service cannot be reached: it has died, is restarting, is stopped, or its breaker is open."""


class ServiceOverloadedError(ServiceError, RuntimeError):
    """The call was refused at once, because a limit on calls, bytes or rate was reached."""


class ServiceNotFoundError(ServiceError, LookupError):
    """There is no service of this name."""


class ServiceMethodError(ServiceError, AttributeError):
    """The service has no public method of this name."""


class ServiceCycleError(ServiceError, RuntimeError):
    """The call would come back to a service that is waiting for it: it would wait for ever."""


class ServiceCancelledError(ServiceError):
    """The call was cancelled before it had a result."""


class QueueError(SageError):
    """Base of what message queues raise, besides `queue.Full` and `queue.Empty`.

    *You closed it* is not *it broke*: `QueueHandleClosedError` is a fault of the caller,
    `QueueClosedError` the ordinary end of a queue, the others say what went wrong outside.
    """


class QueueClosedError(QueueError):
    """The queue was shut down for everybody; for a consumer: and nothing is left in it."""


class QueueHandleClosedError(QueueError):
    """This handle was closed by its own user; the queue may live on."""


class MessageTooLargeError(QueueError, ValueError):
    """The message would not fit even into the empty queue."""


class QueueNameError(QueueError, ValueError):
    """The name is not one: it has forbidden characters, or is a path."""


class QueueNotFoundError(QueueError, LookupError):
    """There is no queue of that name, or not the one that was meant any more."""


class QueueExistsError(QueueError):
    """A queue of that name exists already."""


class QueueInUseError(QueueError):
    """The queue cannot be removed: some process has it open."""


class QueueIncompatibleError(QueueError):
    """The file was made by another version, machine or container, or is no queue."""


class QueueCorruptedError(QueueError):
    """The queue's memory holds what no queue can hold: somebody wrote into it."""


class QueueStalledError(QueueError):
    """The queue's lock has been held for long by a process that is not running."""


class QueueUnsafeError(QueueError):
    """The directory or file of queues belongs to, or is open to, another user."""


class QueueUnsupportedError(QueueError, NotImplementedError):
    """This platform lacks what the kind of queue needs."""
