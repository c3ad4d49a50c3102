"""From the path of a class in a configuration to the class.

Importing runs code: whoever may write the configuration decides what runs, as whoever may write the
program does.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from sage.common.errors import ConfigError
from sage.common.suggest import did_you_mean


def resolve_class(path: str, where: str) -> Callable[..., Any]:
    """Import the class or factory function that a configuration names.

    The longest beginning of the path that is a module is imported; the rest are names in it, so
    `"app.services.Cache"` and `"app.services.Cache.from_url"` both work.

    Args:
        path: `"package.module.Class"`.
        where: What to begin messages with: `"services.yaml:3: services.cache.class"`.

    Raises:
        ConfigError: there is no such module or name in it, it is nothing that can be called, or the
            module raises when it is imported; its exception is the cause.

    Examples:
        >>> resolve_class("collections.OrderedDict", "services.yaml:3: services.cache.class")
        <class 'collections.OrderedDict'>
    """
    steps = path.split(".")
    if len(steps) < 2 or not all(step.isidentifier() for step in steps):
        raise ConfigError(f"{where}: {path!r} is not a path of the form 'package.module.Class'")
    module, rest = _import_longest(steps, where)
    found: Any = module
    for name in rest:
        if not hasattr(found, name):
            raise ConfigError(_no_such_name(found, name, where))
        found = getattr(found, name)
    if not callable(found):
        kind = type(found).__name__
        raise ConfigError(f"{where}: {path} is a {kind}; it must be a class or a function")
    target: Callable[..., Any] = found
    return target


def _import_longest(steps: list[str], where: str) -> tuple[ModuleType, list[str]]:
    """Import the first step, then as many more as are modules; return the names that are left."""
    module = _import(steps[0], where)
    if module is None:
        near = did_you_mean(steps[0], _module_names(None))
        raise ConfigError(
            f"{where}: there is no module {steps[0]!r}.{near} "
            "Is it installed, or is its folder on PYTHONPATH?"
        )
    for count in range(1, len(steps)):
        if hasattr(module, steps[count]) and not _is_package(module):
            return module, steps[count:]
        inner = _import(".".join(steps[: count + 1]), where) if _is_package(module) else None
        if inner is None:
            return module, steps[count:]
        module = inner
    return module, []


def _import(name: str, where: str) -> ModuleType | None:
    """Import a module, or return `None` if there is none of this name."""
    try:
        return importlib.import_module(name)  # noqa: TID251 - the user's module, named in a file
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise _failed(name, error, where) from error
    except Exception as error:
        raise _failed(name, error, where) from error


def _failed(name: str, error: Exception, where: str) -> ConfigError:
    return ConfigError(f"{where}: importing {name!r} failed: {type(error).__name__}: {error}")


def _no_such_name(owner: Any, name: str, where: str) -> str:
    public = [known for known in dir(owner) if not known.startswith("_")]
    inner = _module_names(owner) if isinstance(owner, ModuleType) else []
    kind = "module" if isinstance(owner, ModuleType) else "class"
    near = did_you_mean(name, {*public, *inner})
    return f"{where}: the {kind} {owner.__name__!r} has no {name!r}.{near}"


def _is_package(module: ModuleType) -> bool:
    return hasattr(module, "__path__")


def _module_names(package: ModuleType | None) -> Iterable[str]:
    """Return the modules inside a package; without one, those at the top."""
    if package is None:
        return {*sys.stdlib_module_names, *(m.name for m in pkgutil.iter_modules())}
    return [m.name for m in pkgutil.iter_modules(getattr(package, "__path__", []))]
