"""One process of a small training in which layers run in part: run by test_distributed_parts.py, alone or as a rank.

Usage: python -m model.parts_worker MODE WHAT OUT; MODE one of single, ddp, fsdp2, WHAT one of micro, sequences, growth;
rank 0 writes OUT as JSON. Alone, one process does what both ranks do, one after the other.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.ranks import begin, leave, wrapped
from raptr import Subnetwork, attach
from raptr.model.gate import partial_layer as part_room
from raptr.plan import Copy
from raptr.plan.layer_part import LayerPart, SequenceKey

STEPS = 5
MICROS = 2
BATCH = 4
RANKS = 2


class Micro:
    """Another path in every micro-step; layers 1 and 2 are often in the first only."""

    PATHS = (((0, 1), (0, 3)), ((0, 2), (0, 1, 3)), ((1, 2), (0,)), ((0, 1, 2), (3,)), ((0, 3), (0, 3)))

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        return Subnetwork.of(self.PATHS[step][micro])

    def transition(self, step: int) -> tuple[Copy, ...]:
        return ()


class Sequences(Micro):
    """Every layer on some sequences of each rank, with a factor."""

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        part = LayerPart(scale=0.8, share=0.5, sequences=SequenceKey(seed=1, step=step, micro=micro))
        return Subnetwork(((0, 1, 2, 3),), ((part,) * 4,))


class Growth(Micro):
    """Two layers, then four: the new ones copied, with their state, without it, and silent."""

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        return Subnetwork.of((0, 1) if step < 2 else (0, 1, 2, 3))

    def transition(self, step: int) -> tuple[Copy, ...]:
        if step == 2:
            return Copy(source=0, target=2), Copy(source=1, target=3, silent=True)
        return (Copy(source=1, target=2, reset=True), Copy(source=2, target=1)) if step == 4 else ()


PLANS: dict[str, Any] = {"micro": Micro, "sequences": Sequences, "growth": Growth}


def optimizers_of(model: nn.Module, what: str) -> list[torch.optim.Optimizer]:
    """AdamW; where layers grow, momentum for the norms and Muon for one matrix of each layer."""
    if what != "growth":
        return [torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)]
    kinds: dict[str, list[nn.Parameter]] = {"norm": [], "up_proj": [], "": []}
    for name, p in model.named_parameters():
        kinds[next(kind for kind in kinds if kind in name)].append(p)
    return [
        torch.optim.SGD(kinds["norm"], lr=1e-1, momentum=0.9),
        torch.optim.Muon(kinds["up_proj"], lr=1e-3),
        torch.optim.AdamW(kinds[""], lr=1e-2, weight_decay=0.1),
    ]


def main(mode: str, what: str, out: Path) -> None:
    """Train and write losses, gradients before each step, weights and the optimizers' moments."""
    rank, world = begin(mode)
    assert world == (1 if mode == "single" else RANKS)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, use_cache=False
    )
    model: Any = LlamaForCausalLM(config).double().train()
    net = attach(model)
    outer = wrapped(model, mode, reshard=what != "growth")
    optimizers = optimizers_of(model, what)
    for optimizer in optimizers:
        net.prepare(optimizer)
    identity = [id(p) for p in model.parameters()]
    plan = PLANS[what]()
    tokens = torch.randint(0, 32, (STEPS, MICROS, BATCH * RANKS, 8), generator=torch.Generator().manual_seed(1))
    losses, gradients = [], []
    for step in range(STEPS):
        for micro in range(MICROS):
            last = micro == MICROS - 1
            if mode == "fsdp2":
                model.set_requires_gradient_sync(last)
            net.activate(plan, step, micro)
            total = torch.zeros((), dtype=torch.float64)
            with outer.no_sync() if mode == "ddp" and not last else nullcontext():
                for each in range(RANKS) if mode == "single" else (rank,):
                    with as_rank(each) if mode == "single" else nullcontext():
                        mine = tokens[step, micro].chunk(RANKS)[each]
                        loss = outer(input_ids=mine, labels=mine).loss / MICROS
                        (loss / RANKS if mode == "single" else loss).backward()
                    total += loss.detach()
            if world > 1:
                dist.all_reduce(total)
            losses.append(total.item() / RANKS)
        gradients.append({name: gathered(p.grad) for name, p in model.named_parameters() if p.grad is not None})
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if what == "growth":  # leaves the layers gathered under FSDP2
            with torch.no_grad():
                model.eval()(input_ids=tokens[0, 0])
            model.train()
    result = {
        "losses": losses,
        "gradients": gradients,
        "weights": weights(model),
        "moments": dict(moments(model, optimizers)),
        "same_parameters": identity == [id(p) for p in model.parameters()],
    }
    if rank == 0:
        out.write_text(json.dumps(result))
    leave()


@contextmanager
def as_rank(rank: int) -> Iterator[None]:
    """Draw the sequences of this rank."""
    before, part_room.own_rank = part_room.own_rank, lambda: rank
    try:
        yield
    finally:
        part_room.own_rank = before


def gathered(tensor: Tensor) -> list[float]:
    """All of a tensor's numbers."""
    whole: Callable[[], Tensor] = getattr(tensor, "full_tensor", lambda: tensor)
    return whole().flatten().tolist()


def moments(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Iterator[tuple[str, list[float]]]:
    """What the optimizers remember."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for name, p in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(p, {}).items():
                yield f"{name}/{key}", gathered(value)


def weights(model: nn.Module) -> dict[str, list[float]]:
    """All weights, gathered."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return {name: value.flatten().tolist() for name, value in state.items()}


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
