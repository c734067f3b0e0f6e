"""What the worker scripts of the two-process tests share: how a rank begins and ends, how its model is wrapped."""

import os
import sys
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from raptr.model import find_stacks


def begin(mode: str) -> tuple[int, int]:
    """Seed, one thread, the process group unless the mode is single; rank and number of ranks."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if mode == "single":
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def wrapped(model: Any, mode: str, *, reshard: bool = True) -> Any:
    """An attached model as its mode wraps it: not at all, by DDP, or sharded in place layer by layer."""
    if mode == "ddp":
        return DistributedDataParallel(model, find_unused_parameters=True)
    if mode == "fsdp2":
        for block in find_stacks(model)[0].blocks:
            fully_shard(block, reshard_after_forward=reshard)
        fully_shard(model)
        assert isinstance(model, FSDPModule)
    return model


def leave() -> NoReturn:
    """End this process, with the others, without Python's winding down.

    A thread of gloo that still gives back a finished collective's tensors needs Python's lock for it; if Python is
    winding down by then, the thread is ended inside C++ and the process aborts although all is written.
    """
    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
