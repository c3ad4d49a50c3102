"""`CheckedEntry`: looks at the first result of a function, which may turn out to be a coroutine."""

from __future__ import annotations

from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType
from typing import Any

from sage.common.errors import FunctionError
from sage.dataflow.function.spec import instead_of
from sage.dataflow.graph.stream_graph import StreamNode


class CheckedEntry:
    """Calls a function of an operator, until it has been seen to give a plain result.

    An async function is refused where it is written; a lambda that calls one is only found out by
    what it returns. A loop calls the function itself from the batch after the first result on, so
    the check costs nothing.

    Attributes:
        function: What is called.
        passed: Whether it has given a result that need not be awaited.
    """

    def __init__(self, function: Callable[..., Any], node: StreamNode) -> None:
        self.function = function
        self.passed = False
        self._node = node

    def __call__(self, *args: Any) -> Any:
        """Call the function.

        Raises:
            FunctionError: it gave what would have to be awaited.
        """
        result = self.function(*args)
        if isinstance(result, (CoroutineType, AsyncGeneratorType)):
            if isinstance(result, CoroutineType):
                result.close()  # or Python would warn that it was never awaited
            kind = self._node.operator.kind
            raise FunctionError(
                f"the function of {self._node.name} returned a {type(result).__name__}, which {kind} "
                f"would never await; async functions are not supported by {kind}; {instead_of(kind)}"
            )
        self.passed = True
        return result
