"""One process of a small training with narrow layers: run by test_distributed.py, alone or as one of two ranks.

Usage: python -m model.width_worker MODE INACTIVE OUT, MODE one of single, ddp, fsdp2; rank 0 writes OUT as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.ranks import begin, leave, wrapped
from raptr import attach
from raptr.plan.methods import WidthRaPTr

STEPS = 6
BATCH = 4


def main(mode: str, inactive: Any, out: Path) -> None:
    """Train six steps of WidthRaPTr and write losses and weights.

    Heads (3 groups of 4 rows) and neurons (25) do not divide among two ranks: shards end inside a head.
    """
    rank, world = begin(mode)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=18,
        intermediate_size=25,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=4,
        attention_bias=True,
        mlp_bias=True,
        use_cache=False,
    )
    model: Any = LlamaForCausalLM(config).double().train()
    net = attach(model)
    outer = wrapped(model, mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    net.prepare(optimizer, inactive=inactive)
    plan = WidthRaPTr("40%-70%-100%", scaling="inverse", redraw="micro_step", seed=5).plan(net.shape, STEPS)
    tokens = torch.randint(0, 32, (STEPS, 2, BATCH, 8), generator=torch.Generator().manual_seed(1))
    losses = []
    for step in range(STEPS):
        for micro in range(2):
            mine = tokens[step, micro].chunk(world)[rank]
            net.activate(plan, step, micro=micro)
            loss = outer(input_ids=mine, labels=mine).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        if world > 1:
            dist.all_reduce(mean)
        losses.append(mean.item() / world)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        weights = {name: value.flatten().tolist() for name, value in state.items()}
        out.write_text(json.dumps({"losses": losses, "weights": weights}))
    leave()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
