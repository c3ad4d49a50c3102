"""`ServiceMiddleware`: what a program does around every call of a service."""

from __future__ import annotations

from collections.abc import Sequence

from sage.kernel.runtime.service.channel.service_message import (
    ServiceRequest,
    ServiceResponse,
    error_of,
    failure,
)


class ServiceMiddleware:
    """Looks at calls as they are made and as they end; a subclass overrides what it needs.

    A middleware is around the policies: it sees each call once, however often it is tried, and also
    those that a cache answers or a limit refuses. Of several, the first is the outermost: its
    `before_call` comes first, its `after_call` or `on_error` last. Those of the environment are
    around those of the service.

    `before_call` runs on the thread that makes the call; `after_call` and `on_error` run on the one
    that brings the answer: they must not block, and must not call services. What one of them raises
    becomes the error of the call.

    Examples:
        >>> class Audit(ServiceMiddleware):
        ...     def __init__(self): self.seen = []
        ...     def before_call(self, request): self.seen.append(request.method_name)
        >>> from sage import LocalEnvironment
        >>> audit = Audit()
        >>> with LocalEnvironment("example") as env:
        ...     cache = env.register_service("cache", dict, a=1).options(middleware=[audit])
        ...     env.service_manager.call_service_sync("cache", "get", "a")
        1
        >>> audit.seen
        ['get']
    """

    def before_call(self, request: ServiceRequest) -> ServiceRequest | ServiceResponse | None:
        """Look at a call before it is made.

        Returns:
            `None` to let it go on, possibly changed in place; another request to make instead; or a
            response, with which the call has ended: the service is not called.
        """

    def after_call(self, response: ServiceResponse) -> ServiceResponse | None:
        """Look at the answer to a call that succeeded.

        Returns:
            `None` to let it through, possibly changed in place; or another response.
        """

    def on_error(self, request: ServiceRequest, error: Exception) -> ServiceResponse | None:
        """Look at the error with which a call has failed for good.

        Returns:
            `None` to let it stand; or the response that the call is to have instead.
        """


class MiddlewareChain:
    """Several middlewares, the outermost first."""

    def __init__(self, middlewares: Sequence[ServiceMiddleware]) -> None:
        self._middlewares = tuple(middlewares)

    def before(self, request: ServiceRequest) -> tuple[ServiceRequest, ServiceResponse | None, int]:
        """Return the request to make, or else the response; and how many have seen it."""
        number = request.request_id
        for seen, middleware in enumerate(self._middlewares, 1):
            try:
                said = middleware.before_call(request)
            except Exception as error:  # noqa: BLE001 - it is the error of the call
                return request, failure(number, error), seen
            if isinstance(said, ServiceResponse):
                return request, said, seen
            if said is not None:
                said.request_id = number  # by which its answer is told from others
                request = said
        return request, None, len(self._middlewares)

    def after(
        self, request: ServiceRequest, response: ServiceResponse, seen: int
    ) -> ServiceResponse:
        """Return what the call comes to, once the first `seen` have looked at it.

        It has the number of the call, whichever attempt it answers.
        """
        response.request_id = request.request_id
        for middleware in reversed(self._middlewares[:seen]):
            try:
                said = _ask(middleware, request, response)
            except Exception as error:  # noqa: BLE001 - it is the error of the call
                said = failure(request.request_id, error)
            if said is not None:
                said.request_id = request.request_id
                response = said
        return response


def _ask(
    middleware: ServiceMiddleware, request: ServiceRequest, response: ServiceResponse
) -> ServiceResponse | None:
    if response.success:
        return middleware.after_call(response)
    error = error_of(response, request.service_name, request.method_name)
    # A class that is not derived from `ServiceMiddleware` may leave it out.
    on_error = getattr(middleware, "on_error", None)
    return None if on_error is None else on_error(request, error)
