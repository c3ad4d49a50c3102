"""Which calls belong together: a trace id that goes with a call to the services it reaches.

A call made outside of any service begins a trace, and pays nothing for it: its id follows from what
the request says anyway. A call that a service makes on behalf of another carries the id on.
"""

from __future__ import annotations

import logging
import os

from sage.kernel.runtime.service.channel.service_message import ServiceRequest
from sage.kernel.runtime.service.hosting.service_executor import CURRENT_REQUEST

TRACE_ID = "trace_id"


def trace_id(request: ServiceRequest) -> str:
    """Return the id of the trace that a request belongs to.

    Examples:
        >>> trace_id(ServiceRequest(7, "cache", "get", trace_context={"trace_id": "4f"}))
        '4f'
    """
    told = request.trace_context and request.trace_context.get(TRACE_ID)
    return told or f"{request.response_queue_name or os.getpid()}:{request.request_id}"


def context_below(above: ServiceRequest) -> dict[str, str]:
    """Return the trace context of a call made while working on `above`."""
    return {**(above.trace_context or {}), TRACE_ID: trace_id(above)}


class TraceFilter(logging.Filter):
    """Gives every log record an attribute `trace_id`: that of the call at hand, else `"-"`.

    Examples:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(TraceFilter())
        >>> handler.setFormatter(logging.Formatter("%(trace_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attribute; every record passes."""
        request = CURRENT_REQUEST.get()
        record.trace_id = "-" if request is None else trace_id(request)
        return True
