"""dure 두레: hospitals do research together; each keeps its own patients.

`dure.simulate` asks a question of several frames, `dure.simulate_steps` questions that build on each other; everything
else is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dure.client.simulate import Chain, Simulated, simulate, simulate_steps

__version__ = "0.1.0"
__all__ = ["Chain", "Simulated", "__version__", "simulate", "simulate_steps"]

_WHERE = dict.fromkeys(("Chain", "Simulated", "simulate", "simulate_steps"), "dure.client.simulate")


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'dure' has no attribute {name!r}")
