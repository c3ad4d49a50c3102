"""What is said about calls holds on Ray too: the tests of the other transports, run there."""

from __future__ import annotations

import inspect

import pytest

from service.calls import test_policies as elsewhere
from service.calls.conftest import ISOLATIONS

TESTS = {
    name: test
    for name, test in vars(elsewhere).items()
    if name.startswith("test_")
    and set(inspect.signature(test).parameters) in ({"isolation"}, {"isolation", "tmp_path"})
    and not any(mark.name == "parametrize" for mark in getattr(test, "pytestmark", ()))
}


@pytest.fixture(autouse=True)
def _isolation(ray, monkeypatch):
    monkeypatch.setitem(ISOLATIONS, "ray", {"isolation": "ray", "timeout": 20})


@pytest.mark.parametrize("name", TESTS)
def test_a_policy(name, tmp_path):
    test = TESTS[name]
    given = {"isolation": "ray", "tmp_path": tmp_path}
    test(**{p: given[p] for p in inspect.signature(test).parameters})
