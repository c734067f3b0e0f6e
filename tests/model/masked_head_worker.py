"""One process of a masked training with the head on masked positions: alone or as one of two ranks.

Usage: python -m model.head_worker MODE ARCHITECTURE LOGITS OUT, MODE one of single, ddp, fsdp2, LOGITS all or masked;
rank 0 writes OUT as JSON. Every sequence has as many predictions, so that the mean of the ranks' means is that of all.
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

from helpers.ranks import begin, leave, wrapped
from raptr import RaPTr, attach
from raptr.model import attach_head
from reference.masked_head import batch, build, loss_of_all

STEPS = 4


def main(mode: str, architecture: str, logits_of: str, out: Path) -> None:
    """Train a few steps of RaPTr 1-2 and write losses, gradient norms and weights."""
    rank, world = begin(mode)
    model: Any = build(architecture)
    net = attach(model)
    if logits_of == "masked":
        attach_head(model)
    outer = wrapped(model, mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    net.prepare(optimizer)
    plan = RaPTr("1-2", fixed=(), seed=1).plan(net.shape, STEPS)
    losses, norms, shapes = [], [], []
    for step in range(STEPS):
        tokens, labels, placed = batch(step, counts=(2, 2, 2, 2))
        net.activate(plan, step)
        if logits_of == "all":
            loss = loss_of_all(outer, tokens, labels)
        else:
            mine = {name: value.chunk(world)[rank] for name, value in placed.items()}
            chosen = mine.pop("labels")
            logits = outer(**mine).logits
            shapes.append(list(logits.shape))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), chosen.flatten())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        if world > 1:
            dist.all_reduce(mean)
        losses.append(mean.item() / world)
        norms.append((norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item())
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    weights = {name: value.flatten().tolist() for name, value in state.items()}
    if rank == 0:
        out.write_text(json.dumps({"losses": losses, "norms": norms, "shapes": shapes, "weights": weights}))
    leave()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(*sys.argv[1:4], Path(sys.argv[4]))
