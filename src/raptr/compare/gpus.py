"""Which of several GPUs a process trains on: one, since a run of a comparison is one process."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from raptr.config import RunConfig

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus_of(config: RunConfig) -> tuple[str, ...]:
    """The CUDA devices that this process sees, as the variable that shows them to it names them; none on the CPU."""
    if config.training.get("use_cpu"):
        return ()
    count = torch.cuda.device_count()  # does not begin anything on a device, so that what is visible can be changed
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return tuple(named or map(str, range(count)))[:count]


@contextmanager
def showing(gpus: Sequence[str], turn: int = 0) -> Iterator[None]:
    """What is begun inside, this process's own CUDA or another process, sees one of these only, in turn.

    Args:
        gpus: as `gpus_of` names them; where there is at most one, nothing is changed.
        turn: from 0; after the last one comes the first again.

    Example:
        >>> with showing(("4", "6"), turn=3):
        ...     os.environ["CUDA_VISIBLE_DEVICES"]
        '6'
    """
    if len(gpus) < 2:
        yield
        return
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = gpus[turn % len(gpus)]
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before
