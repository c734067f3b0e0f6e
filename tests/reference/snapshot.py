"""What a model is made of, so that "untouched" and "restored" can be asserted."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """Class and ``__dict__`` of every submodule, and a copy of every tensor, also of those that are not saved.

    Values of ``__dict__`` are held, and compared by identity (their contents, for the dictionaries
    that a module keeps its parameters, children and hooks in).
    """

    classes: dict[str, type]
    entries: dict[str, dict[str, Any]]
    tensors: dict[str, Tensor]
    modes: dict[str, bool]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Look at a model now."""
        modules = dict(model.named_modules(remove_duplicate=False))
        return cls(
            classes={name: type(module) for name, module in modules.items()},
            entries={
                name: {k: dict(v) if isinstance(v, dict) else v for k, v in vars(module).items()}
                for name, module in modules.items()
            },
            tensors=_tensors(model),
            modes={name: module.training for name, module in modules.items()},
        )

    def differences(self, later: Snapshot) -> list[str]:
        """One line for each thing that is no longer as it was."""
        found = []
        if list(self.classes) != list(later.classes):
            found.append(f"modules: {list(self.classes)} -> {list(later.classes)}")
        for name in self.classes.keys() & later.classes.keys():
            if self.classes[name] is not later.classes[name]:
                found.append(f"{name}: class {self.classes[name]} -> {later.classes[name]}")
            old, new = self.entries[name], later.entries[name]
            if old.keys() != new.keys():
                found.append(f"{name}: __dict__ keys differ in {sorted(old.keys() ^ new.keys())}")
            for key in old.keys() & new.keys():
                if not _same(old[key], new[key]):
                    found.append(f"{name}: {key} is {new[key]!r}, was {old[key]!r}")
            if self.modes[name] != later.modes[name]:
                found.append(f"{name}: training {self.modes[name]} -> {later.modes[name]}")
        if list(self.tensors) != list(later.tensors):
            found.append("names of parameters, buffers or gradients differ")
        for name in self.tensors.keys() & later.tensors.keys():
            if not self.tensors[name].equal(later.tensors[name]):
                found.append(f"{name}: the values differ")
        return found


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters, their gradients, and buffers, by name."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {**parameters, **dict(model.named_buffers(remove_duplicate=False))}
    found |= {f"{name}.grad": p.grad for name, p in parameters.items() if p.grad is not None}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        return list(old) == list(new) and all(old[key] is new[key] for key in old)
    return old is new


def untouched(model: nn.Module, before: Snapshot) -> bool:
    """Whether a model is as it was; what differs is printed."""
    found = before.differences(Snapshot.of(model))
    print("\n".join(found))
    return not found


@contextmanager
def left_alone(model: nn.Module) -> Iterator[Snapshot]:
    """Assert that what happens inside changes nothing of a model, of its configuration, or of any random state."""
    before = Snapshot.of(model)
    config = copy.deepcopy(model.config.to_dict()) if hasattr(model, "config") else None
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    yield before
    assert untouched(model, before)
    assert config is None or model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
