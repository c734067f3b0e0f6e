"""The plan of a config's run, with its model's FLOPs; nothing is trained and no text is read."""

from pathlib import Path

from raptr.config import RunConfig
from raptr.data import load_tokenizer
from raptr.data import vocabulary as vocabulary_of
from raptr.errors import RaptrError
from raptr.plan import LayerCosts, Plan
from raptr.train.build import build_arguments, build_model_config
from raptr.train.task import measure


def plan_run(config: RunConfig) -> tuple[str, Plan, LayerCosts]:
    """A config's method, bound to its model and number of steps.

    Returns:
        The method as text, the plan, and the FLOPs of one step of the whole batch.

    Raises:
        RaptrError: what does not fit together, or no number of steps.
    """
    arguments = build_arguments(config, Path())
    if "max_steps" not in config.training:
        raise RaptrError("the number of steps is not known without the data; give training.max_steps=...")
    tokenizer = config.data.tokenizer
    vocabulary = tokenizer if isinstance(tokenizer, int) else vocabulary_of(load_tokenizer(tokenizer))
    shape, costs, _, _ = measure(config, build_model_config(config, vocabulary))
    method = config.build_method()
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return str(method), method.plan(shape, int(config.training["max_steps"])), costs.scaled(batch)
