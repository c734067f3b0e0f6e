"""Skipping has its effect: fewer multiplications, less memory, less time, no recompilation."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import raptr
from reference.families import HUGGING_FACE, LLAMA, MLP, Family, every_family, some_families
from reference.family import Path
from reference.script import on
from reference.snapshot import Snapshot, untouched


def saved_bytes(family: Family, model: nn.Module) -> int:
    """Bytes that one forward keeps for the backward, parameters aside."""
    own = {p.data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = family.loss(model)  # the graph keeps the tensors alive: no address is used twice
        total = sum(seen.values())
    del loss
    return total


@every_family
def test_a_path_keeps_as_much_memory_as_the_smaller_model(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached
    small = saved_bytes(family, family.shallow(family.build(), *family.path))
    full = saved_bytes(family, model)
    net.activate(on(*family.path), 0)
    assert saved_bytes(family, model) == small
    assert small < 0.9 * full  # control


@pytest.mark.slow
@every_family
def test_a_path_multiplies_as_much_as_the_smaller_model(family: Family, attached: tuple[nn.Module, Any]) -> None:
    model, net = attached

    def multiplied(each: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            family.loss(each).backward()
        return counter.get_total_flops()

    small, full = multiplied(family.shallow(family.build(), *family.path)), multiplied(model)
    net.activate(on(*family.path), 0)
    assert multiplied(model) == small
    assert small < 0.9 * full  # control


@pytest.mark.slow
def test_time_falls_with_the_path() -> None:
    """Interleaved in one process, medians, a loose bound: half the layers take at most 0.8 of full.

    Processor time of the one thread: what the wall clock shows on a machine that nobody else uses.
    """
    options: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "max_position_embeddings": 128,
    }
    model = LLAMA.build(layers=8, dtype=torch.float32, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
    net = raptr.attach(model)
    net.prepare(optimizer)
    tokens = torch.randint(61, (2, 128))
    plans = {"full": on(range(8)), "half": on((0, 2, 5, 7)), "full again": on(range(8))}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for repeat in range(10):
        for name, plan in plans.items():
            start = time.process_time()
            net.activate(plan, repeat)
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds[name].append(time.process_time() - start)
    medians = {name: median(times[2:]) for name, times in seconds.items()}
    print(medians)
    assert medians["half"] <= 0.8 * medians["full"]
    assert medians["full again"] > 0.8 * medians["full"]  # control: the bound is beyond the noise


def compiled_and_eager(
    family: Family, paths: Sequence[Path], tolerance: dict[str, float], layers: int | None = None
) -> list[int]:
    """Compare gradients on each path; return how many graphs had been compiled after each."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model, eager = (family.build(layers=layers, dtype=torch.float32) for _ in range(2))
    before = Snapshot.of(model)
    net = raptr.attach(model, **family.arguments(model), compile=True)
    eager_net = raptr.attach(eager, **family.arguments(eager))
    assert all(layer._compiled_call_impl is not None for layer in family.layers(model))
    assert all(layer._compiled_call_impl is None for layer in family.layers(eager))
    graphs = []
    for path in paths:
        for each, each_net in ((model, net), (eager, eager_net)):
            each_net.activate(on(*path), 0)
            each.zero_grad()
            family.loss(each).backward()
        graphs.append(counters["stats"]["unique_graphs"])
        for (name, found), expected in zip(model.named_parameters(), eager.parameters(), strict=True):
            assert (found.grad is None) == (expected.grad is None), name
            if found.grad is not None:
                torch.testing.assert_close(found.grad, expected.grad, **tolerance)
    twin = copy.deepcopy(model)
    assert all(layer._compiled_call_impl is None for layer in family.layers(twin))
    assert Snapshot.of(twin).classes == before.classes
    model.zero_grad()
    net.detach()
    assert untouched(model, before)
    torch._dynamo.reset()
    return graphs


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced for real, but not handed to a C++ compiler: that takes seconds a graph."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, *a, **k: original(f, *a, **{"backend": "aot_eager"} | k))


@pytest.mark.slow
@some_families
@pytest.mark.usefixtures("traced_only")
def test_one_graph_serves_every_layer_of_every_path(family: Family) -> None:
    paths = [((0, 2, 3),), ((1, 3),), ((0, 1, 2, 3),)]
    assert compiled_and_eager(family, paths, {"rtol": 1e-4, "atol": 1e-6}, layers=4) == [1, 1, 1]


COMPILED = [family for family in HUGGING_FACE if family.name in ("falcon-7b", "gemma3", "t5")]


@pytest.mark.slow
@pytest.mark.parametrize("family", COMPILED, ids=lambda family: family.name)
@pytest.mark.usefixtures("traced_only")
def test_no_path_compiles_what_the_full_model_did_not(family: Family) -> None:
    """Blocks that return tuples, mixed kinds of attention, two stacks: they need more than one graph."""
    full, *others = compiled_and_eager(family, [family.full, *family.paths[:2]], {"rtol": 1e-3, "atol": 1e-5})
    assert 1 <= full <= 4
    assert others == [full, full]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_compiled_blocks_give_what_eager_ones_give() -> None:
    """``compile=True`` through the default compiler, on the smallest network.

    Without vector instructions: trying out which ones there are is most of the time.
    """
    from torch._inductor import config

    with config.patch({"cpp.vec_isa_ok": False}):
        graphs = compiled_and_eager(MLP, [((0, 2),), ((1,),)], {"rtol": 1e-3, "atol": 1e-5}, layers=3)
    assert graphs == [1, 1]
