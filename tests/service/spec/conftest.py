"""An environment per way to run a service, closed at the end."""

from __future__ import annotations

import pytest

from sage import LocalEnvironment


@pytest.fixture(params=["local", "process"])
def isolation(request):
    """Where the services of a test run."""
    return request.param


@pytest.fixture
def env():
    """An environment."""
    with LocalEnvironment("my_app") as environment:
        yield environment
