"""One of two ranks that train runs of `raptr train`: run by test_engines.py.

Usage: python -m train.engine_worker MODE JOBS OUT, MODE ddp or fsdp2, JOBS a JSON file with the cache and, by name, the
changes of each run's configuration; "other" is what rank 1 is given beside them, and with "drift" it draws other paths.
Rank 0 writes what each rank has seen.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from helpers.ranks import leave
from helpers.runs import run, tiny
from helpers.shard_on_cpu import shard_on_cpu
from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.model import find_stacks
from raptr.model.rank_check import gather_objects
from raptr.train import engine

SEEN: dict[str, Any] = {}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Notes what the blocks are, and ends the run where it is told to."""

    stop_after: int | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        blocks = find_stacks(kwargs["model"])[0].blocks
        SEEN["sharded"] = [isinstance(block, FSDPModule) for block in blocks]

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.stop_after:
            raise InterruptedError


build_method = RunConfig.build_method


def drifted(self: RunConfig, label: str | None = None) -> Any:
    """The method of another seed, as another version of numpy might draw."""
    return build_method(self.model_copy(update={"seed": self.seed + 1}), label)


def main(mode: str, jobs: Path, out: Path) -> None:
    """Train every run, one after the other."""
    torch.set_num_threads(1)
    told = json.loads(jobs.read_text())
    made, found, compile_ = engine.make_trainer, {}, torch.compile

    def watched(*args: Any, **kwargs: Any) -> Any:
        trainer = made(*args, **kwargs)
        trainer.add_callback(Watch)
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "make_trainer", watched)
        # Traced for real, but not handed to a C++ compiler: that takes seconds a graph.
        patch.setattr(torch, "compile", lambda f, *a, **k: compile_(f, *a, **{"backend": "aot_eager"} | k))
        if mode == "fsdp2":
            shard_on_cpu(patch)
        for name, job in told["runs"].items():
            folder = out.parent / name
            changes = job["changes"] | (job.get("other", {}) if os.environ["RANK"] == "1" else {})
            SEEN.clear()
            drifts = job.get("drift", False) and os.environ["RANK"] == "1"
            patch.setattr(RunConfig, "build_method", drifted if drifts else build_method)
            Watch.stop_after = job.get("stop_after")
            if Watch.stop_after is not None:
                with pytest.raises(InterruptedError):
                    run(tiny(**changes), folder, Path(told["cache"]))
                dist.barrier()
                Watch.stop_after = None
            try:
                SEEN["result"] = run(tiny(**changes), folder, Path(told["cache"]))[1]
            except RaptrError as error:
                SEEN["refused"] = str(error)
            found[name] = gather_objects(dict(SEEN))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
