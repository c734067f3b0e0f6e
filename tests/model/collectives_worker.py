"""One of two ranks that count what FSDP2 sends: run by test_collectives.py.

Usage: python -m model.collectives_worker fsdp2 OUT. Rank 0 writes, by case, how many all-gathers and reduce-scatters a
step made.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.ranks import begin, leave, wrapped
from raptr import Copy, Subnetwork, attach
from raptr.plan.methods import LateExpansion

LAYERS = 8
PATHS = {"two": (0, 7), "three": (0, 4, 7), "five": (0, 2, 3, 4, 7), "all": tuple(range(LAYERS))}


class Fixed:
    """These paths, one for each micro-step, at every step."""

    def __init__(self, *paths: tuple[int, ...]) -> None:
        self.paths = paths

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        return Subnetwork.of(self.paths[micro])

    def transition(self, step: int) -> tuple[Copy, ...]:
        return ()


def main(mode: str, out: Path) -> None:
    """Count each path alone, and two paths in two micro-steps, of which the first does not reduce."""
    rank, _ = begin(mode)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=2
    )
    config.use_cache = False
    model: Any = LlamaForCausalLM(config).train()
    net = attach(model)
    wrapped(model, mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer)
    cases = {name: [path] for name, path in PATHS.items()}
    cases |= {"two, then five": [PATHS["two"], PATHS["five"]], "five, then two": [PATHS["five"], PATHS["two"]]}
    step, found = 0, {}
    for name, paths in cases.items():
        for _ in range(2):  # the first time FSDP2 also sets itself up
            found[name] = counted(model, net, Fixed(*paths), step, len(paths))
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    found["grown"] = grown_under_the_root(config)
    if rank == 0:
        out.write_text(json.dumps(found))
    leave()


def counted(model: Any, net: Any, plan: Fixed, step: int, micro_steps: int) -> dict[str, int]:
    """The collectives of one step."""
    tokens = torch.arange(8)[None]
    found: Counter[str] = Counter()
    for micro in range(micro_steps):
        model.set_requires_gradient_sync(micro == micro_steps - 1)
        net.check_ranks(plan, step, micro_steps=micro_steps, every=1000)
        net.activate(plan, step, micro)
        with CommDebugMode() as sent:
            model(input_ids=tokens, labels=tokens).loss.backward()
        found.update({str(name).rpartition(".")[2]: count for name, count in sent.get_comm_counts().items()})
    return dict(found)


def grown_under_the_root(config: LlamaConfig) -> dict[str, int]:
    """Layer 0 onto layer 1 where the whole model is one unit, which a validation has left gathered: what is equal."""
    model: Any = LlamaForCausalLM(config).train()
    net = attach(model)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer)
    plan = LateExpansion(layers=1, at=0.5).plan(net.shape, 4)
    tokens = torch.arange(8)[None]
    for step in range(2):
        net.activate(plan, step)
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        model(input_ids=tokens)
    model.train()
    net.activate(plan, 2)
    model.reshard()
    pairs = list(zip(*(layer.parameters() for layer in model.model.layers[:2]), strict=True))
    return {
        "of": len(pairs),
        "weights": sum(torch.equal(one.full_tensor(), other.full_tensor()) for one, other in pairs),
        "steps": sum(optimizer.state[other]["step"].item() == 2 for _, other in pairs),
    }


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], Path(sys.argv[2]))
