"""Spans of OpenTelemetry around the calls of services, on both sides.

The caller's side is a middleware; it puts the W3C trace context into the request, by which the
service's side joins the trace, in whatever process it is. Both are off, and cost nothing, as long as
the program has not imported OpenTelemetry and set up a tracer provider; this module imports neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    error_name,
)
from sage.kernel.runtime.service.hosting.service_executor import STREAM_CLOSE, STREAM_NEXT, Respond
from sage.kernel.runtime.service.middleware import ServiceMiddleware

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

_PARENT: Final = "traceparent"
_MOST_OPEN: Final = 100_000


class TracingMiddleware(ServiceMiddleware):
    """Makes a span of kind CLIENT for each call, and lets the service continue its trace.

    Every environment whose services start after the program has set up a tracer provider has one,
    outermost; it is added by hand only to use another provider.

    Args:
        provider: Where the spans go; by default the tracer provider of the program.

    Raises:
        ImportError: `opentelemetry-api` is not installed (extra `otel`).

    Examples:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from sage import LocalEnvironment
        >>> env = LocalEnvironment("example")
        >>> env.services.add_middleware(TracingMiddleware(TracerProvider()))
        >>> response = env.close()
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        from opentelemetry import trace  # an extra  # noqa: PLC0415

        self._tracer: Tracer = trace.get_tracer("sage", tracer_provider=provider)
        self._spans: dict[int, Span] = {}

    def before_call(self, request: ServiceRequest) -> None:
        """Begin the span, below that of the thread or else that of the call at hand."""
        from opentelemetry import trace  # noqa: PLC0415

        above = request.trace_context or {}
        here = trace.get_current_span().get_span_context().is_valid
        span = self._tracer.start_span(
            f"{request.service_name}.{request.method_name}",
            context=None if here else _extract(above),
            kind=trace.SpanKind.CLIENT,
            attributes=_attributes(request),
        )
        request.trace_context = {**above, **_inject(span)}
        if len(self._spans) >= _MOST_OPEN:  # of calls whose end was never told
            self._end(next(iter(self._spans)))
        self._spans[request.request_id] = span

    def after_call(self, response: ServiceResponse) -> None:
        """End the span."""
        self._end(response.request_id)

    def on_error(self, request: ServiceRequest, error: Exception) -> None:
        """End the span with the error."""
        self._end(request.request_id, error)

    def _end(self, number: int, error: Exception | None = None) -> None:
        span = self._spans.pop(number, None)
        if span is None:
            return
        if error is not None:
            told = getattr(error, "error_type", None) or type(error).__name__
            _fail(span, told, str(error), error)
        span.end()


def with_tracing(middleware: tuple[ServiceMiddleware, ...]) -> tuple[ServiceMiddleware, ...]:
    """Return the middlewares of a path, with that for spans as the outermost if spans are wanted."""
    there = any(isinstance(m, TracingMiddleware) for m in middleware)
    return middleware if there or not is_tracing() else (TracingMiddleware(), *middleware)


def is_tracing() -> bool:
    """Say whether this program has imported OpenTelemetry and set up a tracer provider."""
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry import trace  # noqa: PLC0415 - the program has imported it

    provider = trace.get_tracer_provider()
    return not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))


def run_traced(
    request: ServiceRequest, run: Callable[[ServiceRequest, Respond], None], respond: Respond
) -> None:
    """Run a request that belongs to a trace, in a span of kind SERVER if this program wants spans.

    The span is the current one for the method, be it an `async def`; not for a batched one, which
    works for several traces at once. The chunks of a stream have no spans of their own.
    """
    context = request.trace_context or {}
    fetches = request.method_name in (STREAM_NEXT, STREAM_CLOSE)
    if _PARENT not in context or fetches or not is_tracing():
        run(request, respond)
        return
    from opentelemetry import trace  # noqa: PLC0415 - the program has imported it

    span = trace.get_tracer("sage").start_span(
        f"{request.service_name}.{request.method_name}",
        context=_extract(context),
        kind=trace.SpanKind.SERVER,
        attributes={**_attributes(request), "sage.attempt": request.attempt},
    )

    def end(response: ServiceResponse) -> None:
        if not response.success:
            _fail(span, error_name(response), response.error or "", response.cause)
        span.end()
        respond(response)

    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        run(request, end)


def _attributes(request: ServiceRequest) -> dict[str, str]:
    """Return what a span says of a call; not the arguments, which may be secrets."""
    return {
        "rpc.system": "sage",
        "rpc.service": request.service_name,
        "rpc.method": request.method_name,
    }


def _fail(span: Span, error_type: str, text: str, error: BaseException | None) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, text))
    if error is not None:
        span.record_exception(error)


def _inject(span: Span) -> dict[str, str]:
    """Return the W3C context of a span; and its trace id, for the log."""
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

    carrier: dict[str, str] = {}
    context = trace.set_span_in_context(span)
    tracecontext.TraceContextTextMapPropagator().inject(carrier, context)
    if _PARENT in carrier:
        carrier["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
    return carrier


def _extract(context: dict[str, str]) -> Context:
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

    return tracecontext.TraceContextTextMapPropagator().extract(context, Context())
