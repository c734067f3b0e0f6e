"""One of two ranks that do not always agree: run by test_rank_check.py.

Usage: python -m model.agreement_worker MODE OUT. In every case rank 1 is given something else than rank 0; rank 0
writes what each rank was told, and whether weights were as before.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.ranks import begin, leave, wrapped
from raptr import RaPTr, RaptrError, attach
from raptr.model.rank_check import gather_objects
from raptr.plan import Trainable

STEPS = 12


class Fast:
    """Another plan on rank 1, from its sixth step on."""

    def __init__(self, plan: Any, rank: int) -> None:
        self._plan, self._rank = plan, rank

    def subnetwork(self, step: int, micro: int = 0) -> Any:
        return self._plan.subnetwork(step if step < 5 or not self._rank else 11 - step)

    def transition(self, step: int) -> tuple[()]:
        return ()


def main(mode: str, out: Path) -> None:
    """Try each case with a model of its own."""
    rank, _ = begin(mode)

    def cases(shape: Any) -> dict[str, tuple[Trainable, int]]:
        def plan(schedule: str = "2-4", seed: int = 5, **more: Any) -> Any:
            return RaPTr(schedule, seed=seed, **more).plan(shape, STEPS)

        return {
            "nothing": (plan("2-3-4"), 0),
            "seed": (plan(seed=5 + rank, fixed=()), 0),
            "schedule": (plan("2-3-4" if rank else "2-4"), 0),
            "step": (plan(), 4 + rank),
            "scale": (plan(fixed=(), scaling="inverse" if rank else "none"), 0),
            "later": (Fast(plan("3-4", fixed=()), rank), 0),
        }

    found: dict[str, Any] = {}
    for name in cases(_model()[1].shape):
        model, net = _model()
        plan, start = cases(net.shape)[name]
        outer = wrapped(model, mode)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        net.prepare(optimizer)
        before, told = _numbers(model), ""
        steps = 0
        try:
            for step in range(start, STEPS):
                net.check_ranks(plan, step, every=5)
                net.activate(plan, step)
                tokens = torch.arange(8)[None]
                outer(input_ids=tokens, labels=tokens).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                steps += 1
        except RaptrError as error:
            told = str(error)
        mine = {"told": told, "steps": steps, "moved": not torch.equal(before, _numbers(model))}
        found[name] = gather_objects(mine)
    if rank == 0:
        out.write_text(json.dumps(found))
    leave()


def _model() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, use_cache=False
    )
    model = LlamaForCausalLM(config).train()
    return model, attach(model)


def _numbers(model: nn.Module) -> torch.Tensor:
    return torch.cat([getattr(p, "to_local", lambda p=p: p)().detach().flatten() for p in model.parameters()])


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], Path(sys.argv[2]))
