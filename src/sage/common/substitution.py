"""`${VARIABLE}` and `${VARIABLE:-default}` in a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_PLACE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class SubstitutionError(ValueError):
    """A variable is not set, or what stands between `${` and `}` is not a variable."""


def substitute(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Put the values of environment variables into a text.

    `${NAME}` is the value of a variable that must be set; `${NAME:-default}` is `default` where it
    is not set or empty, as in a shell; `$${` stands for `${` itself. A `$` before anything else is
    a `$`. Values are not searched for variables again.

    Args:
        text: The text.
        environ: The variables.

    Returns:
        The new text, and whether a variable was put in.

    Raises:
        SubstitutionError: a variable is not set, or a place is malformed. The message names the
            variable, never a value.

    Examples:
        >>> substitute("http://${HOST}:${PORT:-80}/$${x}", {"HOST": "here"})
        ('http://here:80/${x}', True)
    """
    found = [match.group(0) != "$${" for match in _PLACE.finditer(text)]
    return _PLACE.sub(lambda match: _value(match, environ), text), any(found)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match.group(0) == "$${":
        return "${"
    variable = _VARIABLE.fullmatch(match.group(1))
    if variable is None or not match.group(2):
        raise SubstitutionError(
            f"{match.group(0)!r} is not a variable: write ${{NAME}} or ${{NAME:-default}}, "
            "or $${ for the characters themselves"
        )
    name, default = variable.groups()
    value = environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise SubstitutionError(
            f"the environment variable {name} is not set; "
            f"set it, or give a default: ${{{name}:-default}}"
        )
    return value
