"""How many graphs a run compiles, layer by layer.

One for each class of layer, mode (training, evaluation) and shape of input; none when a stage begins.
"""

from typing import Any

import torch
from torch._dynamo.utils import counters

import raptr
from speed.cases import Case
from speed.step import Step, mixed

PER_STAGE = 3
"""Steps of a stage, each with another path."""


def graphs(case: Case, device: str, *, bf16: bool) -> dict[str, Any]:
    """A whole RaPTr run that evaluates the full model after each stage, and what was compiled during each of them."""
    torch._dynamo.reset()
    counters.clear()
    model, inputs = case.build(device), case.inputs(device)
    step = Step(model, inputs, bf16=bf16)
    net = raptr.attach(model, compile=True)
    net.prepare(step.optimizer)
    sizes = case.schedule.split("-")
    plan = case.method().plan(net.shape, steps=PER_STAGE * len(sizes))
    classes = len({type(block) for block in model.get_submodule(net.shape.stacks[0].name)})  # type: ignore[arg-type]
    rows, paths = {}, set()
    for stage in plan.stages:
        before = compiled()
        for number in range(stage.start, stage.stop):
            paths.add(net.activate(plan, number).layers)
            step()
        model.eval()
        with torch.no_grad(), mixed(device, bf16=bf16):
            model(**inputs)
        model.train()
        rows[stage.label] = compiled() - before
    net.detach()
    torch._dynamo.reset()
    return {"graphs": sum(rows.values()), "expected": 2 * classes, "paths": len(paths), "by_stage": rows}


def compiled() -> int:
    """Graphs that torch has compiled since its counters were cleared."""
    return int(counters["stats"]["unique_graphs"])
