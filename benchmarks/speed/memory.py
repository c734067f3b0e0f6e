"""What a step keeps for its backward inside the layers, and the most memory that it needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._tools.mem_tracker import MemTracker

import raptr
from raptr.model import find_stacks
from speed.cases import Case
from speed.step import Step, mixed


def memory(case: Case, device: str, *, bf16: bool, compile: bool) -> dict[str, Any]:
    """A row for each stage of the case's schedule."""
    model = case.build(device)
    blocks = find_stacks(model)[0].blocks
    step = Step(model, case.inputs(device), bf16=bf16)
    net = raptr.attach(model, compile=compile)
    net.prepare(step.optimizer)
    sizes = case.schedule.split("-")
    plan = case.method().plan(net.shape, steps=2 * len(sizes))
    inputs, rows = case.inputs(device), {}
    for stage in reversed(plan.stages):  # the full model first: it compiles, and fills what is kept between steps
        net.activate(plan, stage.start)
        step()
        with saved_bytes(model, blocks) as saved, mixed(device, bf16=bf16):
            loss = model(**inputs).loss
        loss.backward()
        step.optimizer.zero_grad()
        del loss
        net.activate(plan, stage.start + 1)
        rows[stage.label] = {"saved_mb": saved.bytes / 1e6, "peak_mb": peak(step, device) / 1e6}
    full = rows[sizes[-1]]
    for label, row in rows.items():
        row["saved_over_proportional"] = row["saved_mb"] / full["saved_mb"] / (int(label) / case.layers)
        row["peak_ratio"] = row["peak_mb"] / full["peak_mb"]
    net.detach()
    return {label: rows[label] for label in sizes}


class Saved:
    """The distinct memory that autograd was asked to keep."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._seen: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out again
        self.inside = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take note of a tensor; weights are there anyway."""
        storage = tensor.untyped_storage()
        if self.inside and storage.data_ptr() not in self._own:
            self._seen[storage.data_ptr()] = storage
        return tensor

    @property
    def bytes(self) -> int:
        """Of everything seen."""
        return sum(storage.nbytes() for storage in self._seen.values())


@contextmanager
def saved_bytes(model: nn.Module, blocks: Sequence[nn.Module]) -> Iterator[Saved]:
    """What is kept for the backward of the blocks, in the forward that runs inside."""
    saved = Saved(model)

    def enter(module: nn.Module, args: Any) -> None:
        saved.inside += 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        saved.inside -= 1

    handles = [block.register_forward_pre_hook(enter) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    try:
        with saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            yield saved
    finally:
        for handle in handles:
            handle.remove()


def peak(step: Step, device: str) -> int:
    """The most bytes of tensors at once in a step, parameters and optimizer state included.

    On a GPU those that its allocator gave out; on the CPU torch's own count of all living tensors.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        return int(torch.cuda.max_memory_allocated())
    tracker = MemTracker()
    tracker.track_external(step.model, step.optimizer)
    with tracker:
        step()
    return sum(int(counts["Total"]) for counts in tracker.get_tracker_snapshot("peak").values())
