"""raptr: progressive subnetwork training. Pretrain transformers for less.

At each step a random part of the model is trained; the part grows in stages until it is the
whole model ("Efficient Stagewise Pretraining via Progressive Subnetworks", arXiv 2402.05913).
The public names below and the packages are loaded when they are first used: importing raptr imports
neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raptr.errors import RaptrError
    from raptr.model import AttachedModel, attach
    from raptr.plan import Copy, Full, ModelShape, RaPTr, Schedule, Subnetwork
    from raptr.train import ProgressiveCallback

__version__ = "0.1.0"

_ROOMS = {
    "attach": "raptr.model",
    "AttachedModel": "raptr.model",
    "ProgressiveCallback": "raptr.train",
    "Full": "raptr.plan",
    "RaPTr": "raptr.plan",
    "Schedule": "raptr.plan",
    "ModelShape": "raptr.plan",
    "Subnetwork": "raptr.plan",
    "Copy": "raptr.plan",
    "RaptrError": "raptr.errors",
}

_PACKAGES = ("cli", "compare", "config", "data", "model", "objectives", "plan", "report", "results", "rundir", "train")

__all__ = [
    "AttachedModel",
    "Copy",
    "Full",
    "ModelShape",
    "ProgressiveCallback",
    "RaPTr",
    "RaptrError",
    "Schedule",
    "Subnetwork",
    "attach",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"raptr.{name}")
    if name not in _ROOMS:
        raise AttributeError(
            f"module 'raptr' has no attribute {name!r}; it has {', '.join(__all__)}; {_elsewhere(name)}"
        )
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})


def _elsewhere(name: str) -> str:
    """Where a name is that raptr itself has not."""
    if name[:1].isupper():  # others are asked for by Python itself, too, to see whether there is a module
        for place in ("raptr.plan", "raptr.plan.methods"):
            if name in import_module(place).__all__:
                return f"{name} is in {place}: from {place} import {name}"
    return "other methods are in raptr.plan.methods"
