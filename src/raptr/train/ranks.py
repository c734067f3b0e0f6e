"""Several processes train one run: who writes, how the others hear of it, and which engine joins them."""

import os
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, Literal, TypeVar

import torch.distributed as dist
from accelerate.utils import DistributedType

from raptr.errors import RaptrError
from raptr.model.rank_check import gather_objects

T = TypeVar("T")

Engine = Literal["single", "ddp", "fsdp2"]
"""One process; copies of the model that average their gradients; one model in shards."""


def world_size() -> int:
    """How many processes train together, also before they have met."""
    return dist.get_world_size() if _met() else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, also before they have met."""
    return dist.get_rank() if _met() else int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() == 0


def part() -> None:
    """Let the processes part in good order, so that none aborts while another still talks to it."""
    if _met():
        dist.barrier()
        dist.destroy_process_group()


def from_main(work: Callable[[], T]) -> T:
    """Do some work on rank 0 only, and have what it returns on every rank.

    Raises:
        Exception: what the work raises, on rank 0, and if it is a `RaptrError` on every rank; on others that rank 0
            failed.
    """
    if not _met():
        return work()
    told: list[Any] = [None, None]
    failure: BaseException | None = None
    if is_main():
        try:
            told[0] = work()
        except Exception as error:
            failure = error
            told[1] = (isinstance(error, RaptrError), str(error))
    dist.broadcast_object_list(told)
    if failure is not None:
        raise failure
    if told[1] is not None:
        mendable, message = told[1]
        raise RaptrError(message) if mendable else RuntimeError(f"rank 0 failed: {message}")
    result: T = told[0]
    return result


def check_alike(text: str) -> None:
    """Refuse ranks that were given different texts, such as their configs.

    Raises:
        RaptrError: on every rank, with the first line that differs.
    """
    texts = gather_objects(text)
    for number, other in enumerate(texts):
        pairs = zip_longest(texts[0].splitlines(), other.splitlines(), fillvalue="")
        different = next(((a.strip(), b.strip()) for a, b in pairs if a != b), None)
        if different is not None:
            raise RaptrError(
                f"the processes of one run were given different configs or data: rank {number} has {different[1]!r} "
                f"where rank 0 has {different[0]!r}. Start all with the same command and files."
            )


def engine_asked(fsdp: Any) -> Engine:
    """Return the engine that a run asks for: the one that its Trainer uses, or `engine_of` rejects the Trainer.

    Args:
        fsdp: the value of ``training.fsdp``.
    """
    if fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return "fsdp2"
    return "ddp" if world_size() > 1 else "single"


def engine_of(trainer: Any) -> Engine:
    """Return the engine that a Trainer will use.

    Raises:
        RaptrError: one with which parts of a model cannot be trained, or one that was asked for and is not there.
    """
    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise RaptrError(
            "Accelerate is configured for DeepSpeed, which fills in zero gradients, runs the optimizer by itself and "
            "so moves skipped layers; use DDP, or FSDP2 with training.fsdp=true."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise RaptrError(
                "FSDP version 1 gathers skipped layers too and is not supported; give training.fsdp_config={version: 2}"
                " (the default), or fsdp_version: 2 in Accelerate's configuration."
            )
        return "fsdp2"
    asked = engine_asked(trainer.args.fsdp)
    if asked == "fsdp2":
        raise RaptrError(
            "FSDP was asked for, but Accelerate shards on accelerators only: on this machine it would train with DDP "
            "without saying so. Leave training.fsdp out, or train on GPUs."
        )
    return asked


def _met() -> bool:
    return dist.is_available() and dist.is_initialized()
