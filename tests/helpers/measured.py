"""What `raptr.train.task.measure` finds of a model, kept: hundreds of tests prepare a run of the same few tiny models.

Measuring takes longer than all else that is done before a run's first step. It is a function of its arguments, so the
first answer stands for the later ones. The tests of what it finds (tests/model) call what it is made of themselves.
"""

import warnings
from typing import Any

PARTS = ("build_model", "find_layers", "predictions_of", "count_flops", "denoising_costs")
"""What `measure` is made of: a test that exchanges one of them is given an answer of its own."""

_found: dict[tuple[Any, ...], Any] = {}


def keep_measures(task: Any) -> None:
    """Let the module `raptr.train.task` measure each model once.

    A model that is read from a folder is measured each time, and so is one that is warned of.
    """
    measure = task.measure

    def measured(config: Any, model_config: Any) -> Any:
        if not config.model.architecture:
            return measure(config, model_config)
        sections = (config.model, config.objective, config.data, config.training)
        key = (*map(repr, sections), type(model_config), repr(model_config.to_dict()), config.method == "smaller")
        key = (*key, *(getattr(task, part) for part in PARTS))
        if key not in _found:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = measure(config, model_config)
            for one in said:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
            if said:
                return found
            _found[key] = found
        return _found[key]

    task.measure = measured
