"""The validated configuration of a run.

A config is a YAML file; `load` reads one (or a preset by its name), applies ``key=value`` overrides
and validates the whole. Unknown keys are errors. Nothing here imports torch or transformers: the
parts that they own (``model.config``, ``training``) are checked where they are used.
"""

from raptr.config.data import DataConfig, SourceConfig
from raptr.config.load import dump, load, parse, presets, with_settings
from raptr.config.method_settings import MethodSettings
from raptr.config.methods import SETTINGS, own_model_of
from raptr.config.objective import DenoisingConfig
from raptr.config.schema import RunConfig

__all__ = [
    "SETTINGS",
    "DataConfig",
    "DenoisingConfig",
    "MethodSettings",
    "RunConfig",
    "SourceConfig",
    "dump",
    "load",
    "own_model_of",
    "parse",
    "presets",
    "with_settings",
]
