"""What `raptr inspect` is given: a model by name, on the meta device. Weights are never read."""

import copy
from pathlib import Path
from typing import Any

import torch
import transformers

from raptr.config import RunConfig, load, presets
from raptr.errors import RaptrError
from raptr.messages import first_line
from raptr.model import Inspection, inspect_model
from raptr.rundir.paths import CONFIG
from raptr.train.setup.model import build_model, build_model_config, check_depth
from raptr.train.setup.predictions import predictions_of
from raptr.train.setup.special_tokens import vocabulary_of


def inspect_name(name: str, length: int | None = None) -> Inspection:
    """Inspect the model that a name stands for; see `raptr.model.inspect_model`.

    Args:
        name: a preset, a run's YAML file or folder, a folder with a config.json, or a name on the
            Hugging Face Hub.
        length: tokens per sequence; default the run's own, or that of `inspect_model`.

    Raises:
        RaptrError: the name leads to no model, or the model cannot be trained by parts.
    """
    model, own_length, config = find_model(name)
    predictions = None if config is None or length is not None else predictions_of(config, model)
    return inspect_model(model, length or own_length, predictions=predictions)


def find_model(name: str) -> tuple[Any, int | None, RunConfig | None]:
    """The model that a name stands for, on the meta device; if it is a run's, its sequence length and its config.

    Raises:
        RaptrError: the name leads to no model.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file() and (path / CONFIG).is_file():
            return _of_run(load(path / CONFIG))
        return _of_configuration(name), None, None
    if name in presets() or path.is_file() or path.suffix in (".yaml", ".yml"):
        return _of_run(load(name))
    return _of_configuration(name), None, None


def _of_run(config: RunConfig) -> tuple[Any, int, RunConfig]:
    model = build_model(config, build_model_config(config, vocabulary_of(config)), device="meta")
    return model, config.data.sequence_length, config


def _of_configuration(name: str) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever transformers, the Hub's client or a broken file raise
        raise RaptrError(
            f"{name!r} cannot be read as a model: {first_line(error)} Expected is a preset ({', '.join(presets())}), "
            "a run's YAML file or folder, a folder with a Hugging Face config.json, or a name on the Hugging Face Hub."
        ) from error
    check_depth(config.to_dict(), f"the configuration of {name!r}")
    architecture = next(iter(config.architectures or ()), None)
    kind = getattr(transformers, architecture, None) if architecture else None
    try:
        with torch.device("meta"):
            if kind is not None:
                return kind(copy.deepcopy(config))
            return transformers.AutoModel.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception as error:
        raise RaptrError(
            f"no model can be made of the configuration of {name!r} ({architecture or config.model_type}) by "
            f"transformers {transformers.__version__}: {error}"
        ) from error
