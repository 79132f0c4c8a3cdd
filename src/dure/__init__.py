"""dure 두레: hospitals do research together; each keeps its own patients.

`dure.simulate` asks a question of several frames; everything else is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dure.client.simulate import Simulated, simulate

__version__ = "0.1.0"
__all__ = ["Simulated", "__version__", "simulate"]

_WHERE = {"simulate": "dure.client.simulate", "Simulated": "dure.client.simulate"}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'dure' has no attribute {name!r}")
