"""One process of a small training: run by test_distributed.py, alone or as one of two ranks.

Usage: python -m model.distributed_worker MODE OUT, MODE one of single, ddp, fsdp2; rank 0 writes OUT as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.ranks import begin, leave, wrapped
from raptr import RaPTr, attach

STEPS = 9
BATCH = 4


def main(mode: str, out: Path) -> None:
    """Train nine steps of RaPTr 2-3-4 and write losses, gradient norms and weights."""
    rank, world = begin(mode)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        use_cache=False,
    )
    model: Any = LlamaForCausalLM(config).double().train()
    net = attach(model)
    outer = wrapped(model, mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    net.prepare(optimizer)
    plan = RaPTr("2-3-4", seed=5).plan(net.shape, STEPS)
    tokens = torch.randint(0, 32, (STEPS, BATCH, 8), generator=torch.Generator().manual_seed(1))
    losses, norms, moved = [], [], []
    for step in range(STEPS):
        before = weights(model)
        mine = tokens[step].chunk(world)[rank]
        net.activate(plan, step)
        loss = outer(input_ids=mine, labels=mine).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        if world > 1:
            dist.all_reduce(mean)
        losses.append(mean.item() / world)
        norms.append((norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item())
        after = weights(model)
        moved.append(sorted({name.split(".")[2] for name in after if "layers" in name and after[name] != before[name]}))
    result = {
        "losses": losses,
        "norms": norms,
        "moved": moved,
        "planned": [[str(layer) for layer in plan.subnetwork(step).layers[0]] for step in range(STEPS)],
        "weights": weights(model),
        "detachable": net.detachable,
    }
    if rank == 0:
        out.write_text(json.dumps(result))
    leave()


def weights(model: nn.Module) -> dict[str, list[float]]:
    """All weights, gathered."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return {name: value.flatten().tolist() for name, value in state.items()}


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], Path(sys.argv[2]))
