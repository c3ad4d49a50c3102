"""Every example in a docstring of the package runs and prints what it shows."""

from __future__ import annotations

import doctest
import pkgutil

import pytest

import sage

MODULES = sorted(
    ["sage", *(module.name for module in pkgutil.walk_packages(sage.__path__, "sage."))]
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """The examples of a module give what they show."""
    module = pkgutil.resolve_name(name)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    runner = doctest.DebugRunner()
    for test in tests:
        try:
            runner.run(test)
        except doctest.DocTestFailure as failure:
            line = (test.lineno or 0) + failure.example.lineno + 1
            pytest.fail(
                f"{test.filename}:{line}: {failure.example.source}"
                f"expected\n{failure.example.want}got\n{failure.got}"
            )
        except doctest.UnexpectedException as failure:
            raise failure.exc_info[1] from None


def test_there_are_examples() -> None:
    """The search finds the examples of the package."""
    found = doctest.DocTestFinder().find(pkgutil.resolve_name("sage.core.api.datastream"))
    assert sum(bool(test.examples) for test in found) >= 2
