"""Nothing that a checkpoint holds is run: it is read as tensors and plain values, or not at all.

The Trainer asks torch for that by itself, with ``weights_only``. For a checkpoint in shards (FSDP2) torch does not: it
unpickles the list of what is in it, ``.metadata``, and what is no tensor.
"""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException

from raptr.errors import RaptrError

_ASKS, _ASKS_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

_LISTED = {
    "pathlib": ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "collections": ("OrderedDict",),
    "torch": ("Size", "device", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
}
"""What a list of tensors is made of, by module."""


class NotPlain(Exception):
    """A file is not what it should be, and asks for more than what that is made of."""


class _List(pickle.Unpickler):
    """Reads a list of tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _LISTED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no list of tensors needs")
        return super().find_class(module, name)


def check_lists(checkpoint: Path) -> None:
    """Read the lists of a checkpoint in shards; of one that is not, nothing.

    Raises:
        NotPlain: one of them is more than a list; nothing of it was run.
    """
    for path in checkpoint.rglob("*.metadata"):
        with path.open("rb") as file:
            try:
                _List(file).load()
            except Exception as error:  # whatever bytes that are no pickle of ours raise
                raise NotPlain(f"{path.relative_to(checkpoint)} is no list of tensors: {error}") from error


@contextmanager
def tensors_only(what: str) -> Iterator[None]:
    """While this runs, torch unpickles tensors and plain values only, whoever calls it.

    Args:
        what: is read; for the message.

    Raises:
        RaptrError: there was something else; nothing of it was run.
    """
    before = {name: os.environ.pop(name, None) for name in (_ASKS, _ASKS_NOT)}
    os.environ[_ASKS] = "1"
    try:
        yield
    except (pickle.UnpicklingError, CheckpointException) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise RaptrError(
            f"{what} holds something that is neither a tensor nor a plain value, and that was not run: {reason} "
            "Remove its folder, and the same command goes on from the checkpoint before it."
        ) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _reason(error: BaseException) -> str | None:
    """What torch did not unpickle, in a line; None if something else failed."""
    if isinstance(error, CheckpointException):  # of shards: what each rank says
        return next(filter(None, (_reason(one) for one, _ in error.failures.values())), None)
    if not isinstance(error, pickle.UnpicklingError):
        return None
    lines = str(error).splitlines() or ["it is no pickle."]
    return next((line for line in lines if "GLOBAL" in line), lines[0]).strip()
