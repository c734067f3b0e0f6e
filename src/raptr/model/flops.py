"""FLOPs of a training step, by layer.

Counted by torch's FlopCounterMode on a meta-device twin. Convention: 2 per multiply-add; causal
attention in full, not halved; backward twice the forward; matrix products and attention only (no
norms, activations, embedding look-ups, loss or optimizer).
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raptr.errors import RaptrError
from raptr.model.stacks import Blocks, find_stacks
from raptr.model.twin import Inputs, meta_inputs, meta_twin, run_twin
from raptr.plan import LayerCosts

CONVENTION = "2 per multiply-add, matrix products and attention, causal attention in full, backward twice the forward"


def count_flops(
    model: nn.Module, length: int, blocks: Blocks | None = None, inputs: Inputs | None = None
) -> LayerCosts:
    """Training FLOPs of one sequence, by layer.

    Args:
        model: a model; it is neither run nor changed.
        length: tokens per sequence.
        blocks: as for `attach`, for a module whose stacks cannot be told.
        inputs: keyword arguments of one sequence on the meta device, for a module whose inputs
            cannot be made up.

    Returns:
        `LayerCosts` in FLOPs: ``.layers[stack][layer]``, ``.other`` (head and what else is not in a
        layer), ``.total``, and ``.step(subnetwork)`` for a step of a subnetwork. Forward and
        backward, for one sequence; ``.scaled(batch)`` for a batch.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        ...                      num_attention_heads=2)
        >>> count_flops(LlamaForCausalLM(config), length=16).total > 0
        True
    """
    if length < 1:
        raise RaptrError(f"length is {length}; a sequence has at least 1 token.")
    stacks = find_stacks(model, blocks)
    twin = meta_twin(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run_twin(twin, meta_inputs(model, length) if inputs is None else inputs)
    counts = counter.get_flop_counts()

    def training_flops(name: str) -> float:
        return 3.0 * float(sum(counts.get(name, {}).values()))

    root = type(twin).__name__
    layers = tuple(
        tuple(training_flops(f"{root}.{_path(model, stack.blocks[i])}") for i in range(len(stack.blocks)))
        for stack in stacks
    )
    return LayerCosts(layers=layers, other=training_flops("Global") - sum(map(sum, layers)))


def _path(model: nn.Module, block: nn.Module) -> str:
    return next(str(name) for name, module in model.named_modules() if module is block)
