"""Tiny runs of every objective, and how they are trained on two ranks."""

import copy
import json
from pathlib import Path
from typing import Any

from helpers.started import TESTS, launch

WORKER = TESTS / "train" / "hf" / "engine_worker.py"
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
BERT = {
    "architecture": "bert",
    "config": {
        **SIZES,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 16,
    },
}
T5 = {
    "architecture": "t5",
    "config": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2, "dropout_rate": 0.0},
}
DENOISING = {"name": "denoising", "denoisers": {"R3": 0.25, "S": 0.25, "X3": 0.25, "X8": 0.25}}
RUNS: dict[str, dict[str, Any]] = {
    "causal": {"training__gradient_accumulation_steps": 2, "evaluation__sequences": 7},
    "causal with growth": {"method": "gradual_stacking", "methods": {"gradual_stacking": {"schedule": "2-4"}}},
    "masked": {"model": BERT, "objective": {"name": "masked"}, "training__per_device_eval_batch_size": 1},
    "masked modernbert": {
        "model": {"architecture": "modernbert", "config": SIZES},
        "objective": {"name": "masked"},
        "training__per_device_eval_batch_size": 1,
    },
    "denoising": {"model": T5, "objective": DENOISING, "data__sequence_length": 48, "evaluation__sequences": 6},
    "packed denoising": {
        "objective": DENOISING,
        "data__sequence_length": 48,
        "training__gradient_accumulation_steps": 2,
    },
}
"""The runs, each as changes of the tiny configuration."""


def changes_of(name: str, engine: str) -> dict[str, Any]:
    """One of the runs with the same global batch: two sequences on each of two ranks, or four in one process."""
    changes = copy.deepcopy(RUNS[name]) | {"training__max_steps": 6}
    changes["training__per_device_train_batch_size"] = 4 if engine == "single" else 2
    if engine == "fsdp2":
        changes["training__fsdp"] = True
    return changes


def train_on_two_ranks(folder: Path, engine: str, cache: Path, jobs: dict[str, Any]) -> dict[str, Any]:
    """Train runs on two ranks, and return what each rank has seen of each run.

    Args:
        folder: of the folders of the runs.
        engine: ddp or fsdp2.
        cache: the folder of tokens.
        jobs: name of a run -> what tests/train/hf/engine_worker.py does with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "jobs.json"
    told.write_text(json.dumps({"cache": str(cache), "runs": jobs}))
    return launch(engine, folder / "out.json", WORKER, str(told))
