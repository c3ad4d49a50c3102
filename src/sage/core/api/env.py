"""The environments, under the short path that programs import them from."""

from sage.core.api.base_environment import BaseEnvironment
from sage.core.api.local_environment import LocalEnvironment

__all__ = ["BaseEnvironment", "LocalEnvironment"]
