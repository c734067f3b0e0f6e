"""A twin of a model on the meta device: the same code without memory or arithmetic.

What can be learned from a run without running it (FLOPs by layer, whether every block is called
once and in order) is learned there, before the model is touched.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.depth import Returns
from raptr.model.stacks import Stack, is_hugging_face

Inputs = dict[str, Any]


def meta_twin(model: nn.Module) -> nn.Module:
    """A copy of the model whose parameters and buffers are on the meta device; in eval mode."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(model, memo).eval()
    for module in twin.modules():  # what hangs on the model is not to notice that its twin runs
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    return twin


def meta_inputs(model: Any, length: int) -> Inputs:
    """Inputs for a twin of a Hugging Face language model: one sequence of ``length`` tokens.

    The mask is given whole, (1, 1, T, T): without it, several families look at its values to choose
    another attention, which the meta device cannot answer.

    Raises:
        RaptrError: not a model that takes ``input_ids``.
    """
    if not is_hugging_face(model) or model.main_input_name != "input_ids":
        raise RaptrError(
            f"inputs for a {type(model).__name__} cannot be made up; "
            "only Hugging Face models that take input_ids can be run without being given inputs."
        )
    tokens = torch.zeros((1, length), dtype=torch.long, device="meta")
    mask = torch.zeros((1, 1, length, length), dtype=model.dtype, device="meta")
    inputs: Inputs = {"input_ids": tokens, "attention_mask": mask}
    if hasattr(model.config, "use_cache"):
        inputs["use_cache"] = False
    return inputs


def check_calls(model: nn.Module, stacks: Sequence[Stack]) -> None:
    """Refuse a model in which a block is not called exactly once, in order, with what a skip can supply.

    Raises:
        RaptrError: with the order in which the blocks were called, or why the model could not be run.
    """
    twin = meta_twin(model)
    modules = dict(twin.named_modules())
    called: list[tuple[str, int]] = []
    returns = {stack.name: Returns(stack.name) for stack in stacks}

    def record(name: str, layer: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: Any, output: Any) -> None:
            called.append((name, layer))
            returns[name].learn(output)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for stack in stacks:
            for layer in range(len(stack.blocks)):
                handle = modules[f"{stack.name}.{layer}"].register_forward_hook(record(stack.name, layer))
                hooks.callback(handle.remove)
        run_twin(twin, meta_inputs(model, length=8))
    expected = [(stack.name, layer) for stack in stacks for layer in range(len(stack.blocks))]
    if called != expected:
        order = ", ".join(f"{name}.{layer}" for name, layer in called) or "none"
        raise RaptrError(
            f"{type(model).__name__} does not call each of its layers exactly once and in order (called: {order}); "
            "such a model cannot be trained by parts."
        )


def run_twin(twin: nn.Module, inputs: Inputs) -> None:
    """Run a twin forward; what goes wrong there is said as such."""
    try:
        twin(**inputs)
    except RaptrError:
        raise
    except Exception as error:
        raise RaptrError(
            f"{type(twin).__name__} could not be run on the meta device ({type(error).__name__}: {error}); "
            "pass blocks=, the ModuleList of its layers, to attach without this check."
        ) from error
