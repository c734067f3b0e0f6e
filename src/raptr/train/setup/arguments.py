"""From a config's ``training`` section to the Trainer's arguments: checked, with what raptr sets itself."""

import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import TrainingArguments, get_scheduler

from raptr.config import RunConfig
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan.schedule import MOST_STEPS
from raptr.train.ranks import world_size

_OWN = {
    "output_dir": "the run's folder is given to `raptr train`",
    "seed": "give it as the config's own `seed`",
    "data_seed": "the order of the data follows the config's own `seed`",
    "eval_strategy": "give `evaluation.every`",
    "eval_steps": "give `evaluation.every`",
    "eval_on_start": "the model is always evaluated before the first step",
    "logging_strategy": "every step is written to metrics.jsonl",
    "logging_steps": "every step is written to metrics.jsonl",
    "train_sampling_strategy": "the order of the data is fixed by the config's own `seed`",
    "dataloader_in_order": "the order of the data is fixed by the config's own `seed`",
    "dataloader_drop_last": "the validation loss would be of fewer sequences than the config says",
    "ignore_data_skip": "a run that goes on would see the same data again",
    "restore_callback_states_from_checkpoint": "a run that goes on restores its own state",
    "enable_jit_checkpoint": "raptr itself saves on SIGTERM, and ends as a run that goes on",
    "label_names": "raptr makes the labels itself",
    "bf16_full_eval": "a run is validated in the precision it is trained in",
    "fp16_full_eval": "a run is validated in the precision it is trained in",
    "remove_unused_columns": "raptr makes the model's inputs itself",
    "disable_tqdm": "raptr shows its own progress bar",
    "resume_from_checkpoint": "repeat the command: it goes on from the newest checkpoint",
    "save_strategy": "give `checkpoints.every`",
    "save_steps": "give `checkpoints.every`",
    "save_total_limit": "the two newest checkpoints are kept until the run is finished",
    "save_only_model": "a run could not go on from such a checkpoint",
    "load_best_model_at_end": "the last step's model is what a comparison is about",
    "torch_compile_backend": "torch_compile=true compiles each layer by itself, with torch's default",
    "torch_compile_mode": "torch_compile=true compiles each layer by itself, with torch's default",
    "auto_find_batch_size": "the batch decides what a step costs and which data it sees",
    "accelerator_config": "the batch decides what a step costs and which data it sees",
    "eval_delay": "the full model is validated throughout",
    "deepspeed": "it fills in zero gradients and moves skipped layers; use DDP, or training.fsdp",
    "average_tokens_across_devices": "the loss of a step is the mean over the tokens of all devices",
    "log_on_each_node": "one process writes for all",
    "save_on_each_node": "a run has one folder, which all processes see",
    "label_smoothing_factor": "the validation loss would not be the model's",
    "logging_nan_inf_filter": "the loss of every step is recorded as it is",
}
"""Arguments of the Trainer that raptr sets, and why they cannot be given."""

_TYPES: dict[str, Any] = {"fsdp": bool | str | None}
"""Where the Trainer takes more than its annotations say."""

_IN_BACKWARD = ("layerwise", "lomo")
"""How the names of optimizers end that do not wait for `step`."""

_AT_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": 1,
    "num_train_epochs": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
}


def build_arguments(config: RunConfig, folder: Path, **own: Any) -> TrainingArguments:
    """The Trainer's arguments: the config's ``training`` section with what raptr sets itself.

    Args:
        config: the run.
        folder: where the Trainer writes.
        own: arguments that raptr decides for this run.

    Raises:
        RaptrError: an unknown argument, one that raptr sets itself, or a value of the wrong type.
    """
    hints = typing.get_type_hints(TrainingArguments) | _TYPES
    names = {field.name for field in fields(TrainingArguments) if field.init}
    given: dict[str, Any] = {}
    own_settings(config)  # so that what is wrong with them shows here, too
    for key, value in config.training.items():
        if key in OWN_NAMES:
            continue
        if key in _OWN:
            raise RaptrError(f"training.{key} is set by raptr; remove it: {_OWN[key]}.")
        if key not in names:
            raise RaptrError(
                f"training.{key} is not an argument of transformers' TrainingArguments; "
                + (did_you_mean(key, names | OWN_NAMES, quoted=False) or "see their documentation.")
            )
        try:
            given[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise RaptrError(f"training.{key} is {value!r}; expected {words_of(hints[key])}.") from error
        if key in _AT_LEAST and isinstance(given[key], int | float) and not given[key] >= _AT_LEAST[key]:
            raise RaptrError(f"training.{key} is {value}; expected at least {_AT_LEAST[key]}.")
    defaults: dict[str, Any] = {
        "report_to": "none",
        "ddp_find_unused_parameters": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": world_size() > 1 and not torch.accelerator.is_available(),  # else each rank would train alone
        "per_device_eval_batch_size": given.get("per_device_train_batch_size", 8),
    }
    pinned = given.get("dataloader_pin_memory", defaults["dataloader_pin_memory"])
    fixed: dict[str, Any] = {
        "accelerator_config": {"non_blocking": pinned},  # batches are copied while the device computes
        "output_dir": str(folder),
        "save_strategy": "no",
        "seed": config.seed,
        "eval_on_start": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }
    make: Callable[..., TrainingArguments] = TrainingArguments
    try:
        arguments = make(**{**defaults, **given, **fixed, **own})
    except (ValueError, ImportError, TypeError) as error:
        raise RaptrError(f"training is not valid: {error}") from error
    if arguments.optim.value.endswith(_IN_BACKWARD):
        raise RaptrError(
            f"training.optim is {arguments.optim.value!r}, which updates weights during the backward pass, so that "
            "neither skipped layers nor an update that is not finite could be left out; give another, e.g. adamw_torch."
        )
    if arguments.world_size != world_size():
        raise RaptrError(
            f"{world_size()} processes were started, but Accelerate sees {arguments.world_size}: each would train a "
            "model of its own; leave training.use_cpu out, and start with torchrun or accelerate launch."
        )
    if arguments.n_gpu > 1:
        raise RaptrError(
            f"one process was started, but {arguments.n_gpu} GPUs are there; start one process for each "
            f"(torchrun --nproc_per_node {arguments.n_gpu} -m raptr train ...), or show it one with "
            "CUDA_VISIBLE_DEVICES=0."
        )
    return arguments


def learning_rate_at(config: RunConfig, steps: int, step: int) -> float:
    """Return the learning rate of a config's schedule after ``step`` steps of a run of ``steps``.

    Raises:
        RaptrError: the ``training`` section is not valid.
    """
    arguments = build_arguments(config, Path(), max_steps=steps)
    try:
        scheduler = get_scheduler(
            arguments.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)], lr=arguments.learning_rate),
            num_warmup_steps=arguments.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError) as error:
        raise RaptrError(f"training is not valid: {error}") from error
    return float(arguments.learning_rate * scheduler.lr_lambdas[0](step))


def rows_of(arguments: TrainingArguments) -> int:
    """Sequences of one micro-step, over all processes."""
    return int(arguments.train_batch_size * arguments.world_size)


def batch_of(arguments: TrainingArguments) -> int:
    """Sequences of one optimizer step, over all processes and micro-steps."""
    return int(rows_of(arguments) * arguments.gradient_accumulation_steps)


@dataclass(frozen=True, kw_only=True)
class Own:
    """What raptr itself reads of the ``training`` section.

    Attributes:
        probe_memory: whether the full model is run once before the first step, so that what does not fit shows at once;
            by default on accelerators.
        peak_flops: FLOPs per second that one device reaches at best, in the precision of the run; with it the
            utilisation ("mfu") of every step is recorded.
        torch_compile: whether every layer is compiled by itself.
    """

    probe_memory: bool | None = None
    peak_flops: float | None = None
    torch_compile: bool = False


def steps_of(config: RunConfig, epoch: float) -> int:
    """Return how many steps a run takes, where an epoch has so many.

    Raises:
        RaptrError: the config gives no length, or too many epochs.
    """
    if "max_steps" in config.training:
        return int(config.training["max_steps"])
    if "num_train_epochs" in config.training:
        steps = float(config.training["num_train_epochs"]) * epoch
        if steps > MOST_STEPS:
            raise RaptrError(f"training.num_train_epochs asks for more than {MOST_STEPS:,} steps; give fewer epochs.")
        return max(1, math.ceil(steps))
    raise RaptrError("the length of the run is missing; give training.max_steps or training.num_train_epochs.")


def own_settings(config: RunConfig) -> Own:
    """What a config says of raptr's own settings.

    Raises:
        RaptrError: a value of the wrong type, or a peak that is not above 0.
    """
    given = {field.name: config.training[field.name] for field in fields(Own) if field.name in config.training}
    try:
        own = TypeAdapter(Own).validate_python(given, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        expected = words_of(typing.get_type_hints(Own)[name])
        raise RaptrError(f"training.{name} is {given[name]!r}; expected {expected}.") from error
    if own.peak_flops is not None and not 0 < own.peak_flops < float("inf"):
        raise RaptrError(
            f"training.peak_flops is {own.peak_flops}; expected the FLOPs per second of one device, e.g. 989e12."
        )
    return own


OWN_NAMES = frozenset(field.name for field in fields(Own))
"""Names of these settings in the ``training`` section."""


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a section of keys and values",
    types.NoneType: "null",
}


def words_of(hint: Any) -> str:
    """A type in plain words.

    Example:
        >>> words_of(float)
        'a number'
        >>> words_of(bool | str | None)
        'true or false, a text or null'
    """
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    origins = [kind if typing.get_origin(kind) is typing.Literal else typing.get_origin(kind) or kind for kind in kinds]
    origins.sort(key=lambda origin: origin is types.NoneType)  # null comes last
    words = dict.fromkeys(_word(origin) for origin in origins if not (origin is int and float in origins))
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _word(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(each.value) for each in kind)
    return _WORDS.get(kind, str(getattr(kind, "__name__", kind)))
