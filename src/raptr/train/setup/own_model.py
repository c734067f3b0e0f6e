"""From the config of a control to an ordinary config of the model that the control trains."""

from typing import Any

from raptr.config import RunConfig
from raptr.config.method_settings import GivenModel
from raptr.errors import RaptrError
from raptr.model import find_stacks
from raptr.model.stacks import depth_settings
from raptr.plan import LayerCosts, ModelShape
from raptr.train.setup.model import build_model


def own_config(
    config: RunConfig, label: str, *, model_config: Any, shape: ModelShape, costs: LayerCosts, steps: int
) -> RunConfig:
    """Return the config with the model that an entry trains; its depth is written out in the entry, too.

    Args:
        config: of the given model.
        label: of the entry.
        model_config: the transformers configuration of the given model.
        shape: of the given model.
        costs: FLOPs of one of its steps.
        steps: of the run.

    Returns:
        The same config if the entry's method trains the given model.

    Raises:
        RaptrError: there are no weights for the entry's own model, its depth does not fit, or the depth cannot be
            changed in this model.
    """
    settings = config.settings(label)
    if not settings.own_model:
        return config
    if config.model.from_pretrained is not None:
        raise RaptrError(
            f"{label} is {settings.own_model}, which model.from_pretrained {config.model.from_pretrained!r} has no "
            "weights for; leave it out, or give model.from_config for fresh ones."
        )
    given = GivenModel(shape=shape, costs=costs, steps=steps, method=config.build_method)
    sizes = settings.own_sizes(label, given)
    model = build_model(config, model_config, device="meta")
    changed = {**config.model.config, **depth_settings(model, find_stacks(model), sizes)}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"config": changed}),
            "methods": {**config.methods, label: settings.with_sizes(sizes)},
        }
    )
