"""A trial run: what does not fit into memory shows before training, and nothing is left behind."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.messages import first_line


@contextmanager
def nothing_happened(model: nn.Module) -> Iterator[None]:
    """Put back gradients, buffers and random states after the block, whatever it did with them.

    Inside, no parameter has a gradient. Parameters are not put back: a forward and a backward do not change them.

    Raises:
        RaptrError: the block ran out of memory.
    """
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    for p, _ in gradients:
        p.grad = None
    try:
        with torch.random.fork_rng(devices):
            yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise RaptrError(
            f"the full model does not fit into memory: {first_line(error)} The last stage trains all of it, "
            "so the run would end there. Give each device fewer sequences at a time (in a config "
            "training.per_device_train_batch_size, and more gradient_accumulation_steps), bf16, activation "
            "checkpointing, or shard the model (training.fsdp)."
        ) from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
