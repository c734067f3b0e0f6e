"""From a config to a model, a tokenizer's vocabulary and training arguments: checked, not trained."""

import copy
import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from pydantic import TypeAdapter, ValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, TrainingArguments
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from raptr.config import RunConfig
from raptr.errors import RaptrError

_AUTO_CLASSES = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}

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
    "remove_unused_columns": "raptr makes the model's inputs itself",
    "disable_tqdm": "raptr shows its own progress bar",
    "resume_from_checkpoint": "repeat the command instead",
    "torch_compile": "compiling the whole model recompiles for every path",
    "torch_compile_backend": "compiling the whole model recompiles for every path",
    "torch_compile_mode": "compiling the whole model recompiles for every path",
    "auto_find_batch_size": "the batch decides what a step costs and which data it sees",
    "accelerator_config": "the batch decides what a step costs and which data it sees",
    "eval_delay": "the full model is validated throughout",
    "label_smoothing_factor": "the validation loss would not be the model's",
    "logging_nan_inf_filter": "the loss of every step is recorded as it is",
}
"""Arguments of the Trainer that raptr sets, and why they cannot be given."""

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


def build_model_config(
    config: RunConfig, vocabulary: int, special_tokens: Mapping[str, int | None] = MappingProxyType({})
) -> Any:
    """The transformers configuration of the run's model.

    Args:
        config: the run.
        vocabulary: how many tokens the tokenizer has; the model's ``vocab_size`` unless given.
        special_tokens: the tokenizer's ids by name ("pad_token_id"), the model's unless given.

    Raises:
        RaptrError: an unknown architecture or key, values that do not go together, a vocabulary
            smaller than the tokenizer's, or positions for fewer tokens than a sequence has.
    """
    architecture, given = config.model.architecture, config.model.config
    if architecture not in CONFIG_MAPPING:
        raise RaptrError(
            f"model.architecture {architecture!r} is not a model type of transformers {transformers.__version__}; "
            + _hint(architecture, CONFIG_MAPPING.keys(), "expected e.g. llama, gpt2 or bert.")
        )
    known = CONFIG_MAPPING[architecture]
    expected = {*known().to_dict(), *known.attribute_map}
    for key in given:
        if key not in expected:
            raise RaptrError(
                f"model.config.{key} is not a setting of {architecture}; "
                + _hint(key, expected, "see its configuration in transformers.")
            )
    try:
        result = AutoConfig.for_model(architecture, **{"vocab_size": vocabulary, **special_tokens, **given})
    except Exception as error:
        raise RaptrError(f"model.config is not a valid configuration of {architecture}: {error}") from error
    if result.vocab_size < vocabulary:
        raise RaptrError(
            f"model.config.vocab_size is {result.vocab_size}, but the tokenizer has {vocabulary} tokens; "
            f"give at least {vocabulary}, or leave vocab_size out."
        )
    positions, length = getattr(result, "max_position_embeddings", None), config.data.sequence_length
    if positions is not None and positions < length:
        raise RaptrError(
            f"data.sequence_length is {length}, but the model has positions for {positions} tokens; "
            "shorten the sequences or raise model.config.max_position_embeddings."
        )
    return result


def build_model(config: RunConfig, model_config: Any, device: str | None = None) -> Any:
    """A freshly initialised model; the same seed gives the same weights, whatever the method.

    Args:
        config: the run.
        model_config: of `build_model_config`.
        device: "meta" for a model without memory, to count its FLOPs.

    Raises:
        RaptrError: the architecture has no head for the objective, or its configuration does not
            make a model.
    """
    transformers.set_seed(config.seed)
    try:
        with torch.device(device or "cpu"):
            return _AUTO_CLASSES[config.objective.name].from_config(copy.deepcopy(model_config))
    except Exception as error:
        raise RaptrError(
            f"no {config.model.architecture} model for the {config.objective.name} objective "
            f"can be made from model.config: {error}"
        ) from error


def build_arguments(config: RunConfig, folder: Path, **own: Any) -> TrainingArguments:
    """The Trainer's arguments: the config's ``training`` section with what raptr sets itself.

    Args:
        config: the run.
        folder: the run's folder.
        own: arguments that raptr decides for this run.

    Raises:
        RaptrError: an unknown argument, one that raptr sets itself, or a value of the wrong type.
    """
    hints = typing.get_type_hints(TrainingArguments)
    names = {field.name for field in fields(TrainingArguments) if field.init}
    given: dict[str, Any] = {}
    for key, value in config.training.items():
        if key in _OWN:
            raise RaptrError(f"training.{key} is set by raptr; remove it: {_OWN[key]}.")
        if key not in names:
            raise RaptrError(
                f"training.{key} is not an argument of transformers' TrainingArguments; "
                + _hint(key, names, "see their documentation.")
            )
        try:
            given[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise RaptrError(
                f"training.{key} is {value!r}; expected {hints[key]}: {error.errors()[0]['msg']}."
            ) from error
        if key in _AT_LEAST and isinstance(given[key], int | float) and not given[key] >= _AT_LEAST[key]:
            raise RaptrError(f"training.{key} is {value}; expected at least {_AT_LEAST[key]}.")
    defaults: dict[str, Any] = {
        "report_to": "none",
        "save_strategy": "no",
        "ddp_find_unused_parameters": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "per_device_eval_batch_size": given.get("per_device_train_batch_size", 8),
    }
    fixed: dict[str, Any] = {
        "output_dir": str(folder),
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
    if arguments.world_size > 1:
        raise RaptrError(
            f"raptr's own runs use one process, but {arguments.world_size} were started; "
            "under torchrun use raptr.ProgressiveCallback in a Trainer of your own."
        )
    return arguments


def batch_of(arguments: TrainingArguments) -> int:
    """Sequences of one optimizer step, over all devices and micro-steps."""
    return int(arguments.train_batch_size * arguments.gradient_accumulation_steps)


def _hint(given: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(given, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
