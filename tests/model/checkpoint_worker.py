"""One process of a training that is saved on the way and goes on from it: run by test_checkpoints.py.

Usage: python -m model.checkpoint_worker MODE FOLDER JOBS OUT, MODE one of single, fsdp2. JOBS are separated by commas:
"save=NAME" trains from the start and saves whole and in shards on the way; "go=NAME/KIND-STEP" goes on from there;
"lazy" is the control. Rank 0 writes the weights and moments at the end of each.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.ranks import begin, leave, wrapped
from raptr import Copy, RaptrError, Subnetwork, attach

STEPS = 5
SAVED = (1, 2, 3)
"""Steps done: before layers 1, 2 and 3 were trained, right before the boundary, and behind it."""
BATCH = 6
FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
WHOLE_ONLY = StateDictOptions(full_state_dict=True)


class Growth:
    """Layers 0 and 1, of which one alone at first; from the third step on all four."""

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        return Subnetwork.of([(0,), (0, 1), (0, 1, 2, 3)][min(step, 2)])

    def transition(self, step: int) -> tuple[Copy, ...]:
        return (Copy(source=0, target=2), Copy(source=1, target=3)) if step == 2 else ()


class Training:
    """A model, its optimizer and its data."""

    def __init__(self, mode: str, *, prepared: bool = True) -> None:
        torch.manual_seed(0)
        self.plan, self.prepared = Growth(), prepared
        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2
        )
        config.use_cache = False
        self.model: Any = LlamaForCausalLM(config).double().train()
        self.net = attach(self.model)
        wrapped(self.model, mode)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.1)
        if prepared:
            self.net.prepare(self.optimizer)

    def step(self, step: int) -> None:
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        tokens = torch.randint(0, 32, (BATCH, 8), generator=torch.Generator().manual_seed(step)).chunk(size)[rank]
        if self.prepared:
            self.net.activate(self.plan, step)
        self.model(input_ids=tokens, labels=tokens).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        alone = not dist.is_initialized()
        weights, moments = get_state_dict(self.model, self.optimizer)
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=folder, no_dist=alone)
        weights, moments = get_state_dict(self.model, self.optimizer, options=FULL)
        if alone or dist.get_rank() == 0:
            torch.save({"model": weights, "optimizer": moments}, folder.with_suffix(".pt"))

    def load(self, folder: Path) -> None:
        if folder.suffix == ".pt":
            state, options = torch.load(folder, weights_only=True), WHOLE_ONLY
        else:
            weights, moments = get_state_dict(self.model, self.optimizer)
            state, options = {"model": weights, "optimizer": moments}, None
            dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=options,
        )

    def end(self) -> dict[str, list[float]]:
        weights, moments = get_state_dict(self.model, self.optimizer, options=FULL)
        found = {name: value.flatten().tolist() for name, value in weights.items()}
        for name, state in moments.get("state", {}).items():
            found |= {f"{name}/{key}": torch.as_tensor(value).flatten().tolist() for key, value in state.items()}
        return found


def main(mode: str, folder: Path, jobs: str, out: Path) -> None:
    """Do every job with a model of its own."""
    rank, _ = begin(mode)
    found = {}
    for job in jobs.split(","):
        kind, _, name = job.partition("=")
        training = Training(mode, prepared=kind != "lazy")
        if kind == "save":
            for step in range(STEPS):
                if step in SAVED:
                    training.save(folder / name / str(step))
                training.step(step)
            found[job] = training.end()
        elif kind == "go":
            start = folder / name
            training.load(start)
            for step in range(int(start.stem), STEPS):
                training.step(step)
            found[job] = training.end()
        else:
            found[job] = lazy(training, mode, folder / "lazy")
    if rank == 0:
        out.write_text(json.dumps(found))
    leave()


def lazy(training: Training, mode: str, folder: Path) -> str:
    """What is said of a checkpoint in which layers that were not trained have no state."""
    with training.net.using(Subnetwork.of((0,))):
        training.step(0)
    training.save(folder)
    fresh = Training(mode)
    try:
        fresh.load(folder)
    except (RaptrError, RuntimeError, KeyError, dcp.CheckpointException) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
