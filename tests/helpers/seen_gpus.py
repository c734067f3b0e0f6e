"""What a process is shown of the machine's GPUs; imported by processes that are to start at once, so without torch."""

import os
from pathlib import Path
from typing import Any


def note_gpu(folder: Path, _chosen: Any, names: list[tuple[int, str]], *_: Any) -> None:
    """In the place of a worker's training: write down which GPUs it sees."""
    for _, name in names:
        (folder / name).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
