"""What Accelerate's FSDP2 makes a shard unit of, the models that it cannot shard, and their weights in one piece."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from raptr.config import RunConfig
from raptr.errors import RaptrError


def units_of(config: RunConfig, blocks: Iterable[nn.Module]) -> dict[str, Any]:
    """The config's ``fsdp_config``, in which every layer is a shard unit of its own.

    Only then is a skipped layer not gathered. What transformers names as units by itself is more than the layers
    (BERT's embeddings), some of which Accelerate then shards twice.

    Args:
        config: the run.
        blocks: the layers of its model.

    Returns:
        An argument of `build_arguments`; none where the model is not sharded, or the config names the units itself.
    """
    given = config.training.get("fsdp_config") or {}
    units = ("transformer_layer_cls_to_wrap", "auto_wrap_policy", "min_num_params")
    named = isinstance(given, str) or any(given.get(key) or given.get(f"fsdp_{key}") for key in units)
    if named or not config.training.get("fsdp"):
        return {}
    return {"fsdp_config": {**given, units[0]: sorted({type(block).__name__ for block in blocks})}}


def check_tied(model: Any) -> None:
    """Refuse a model of which two shard units would hold one parameter, which torch refuses at the first forward.

    Accelerate keeps the embeddings and an output layer that shares their weight together. It does not know of other
    places of these parameters: the bias of BERT's and RoBERTa's heads, the embeddings of T5's encoder and decoder.

    Raises:
        RaptrError: there is such a parameter; with the names that it has.
    """
    together = [
        module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None
    ]
    held = {id(parameter) for module in together for parameter in module.parameters()}
    inside = {id(module) for unit in together for module in unit.modules()}
    others = [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if id(module) not in inside
        for name, parameter in module.named_parameters(recurse=False)
        if id(parameter) in held
    ]
    if others:
        raise RaptrError(
            f"{type(model).__name__} cannot be sharded by Accelerate: {', '.join(others)} is also a parameter of its "
            "embeddings or output layer, and torch takes no parameter in two shard groups. Train it with DDP (leave "
            "training.fsdp out)."
        )


def whole_weights(model: nn.Module, gathered: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gathered weights, in which a parameter of several names is one tensor again, so that it is saved once.

    Args:
        model: the sharded model, which knows what is tied.
        gathered: its weights on this rank; nothing, on ranks that do not save.
    """
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        one = first.setdefault(id(parameter), name)
        if name in gathered and one in gathered:
            gathered[name] = gathered[one]
    return gathered
