"""How long tests wait for what has to come: it only ends those that would wait for ever."""

from typing import Final

PATIENCE: Final = 60.0
