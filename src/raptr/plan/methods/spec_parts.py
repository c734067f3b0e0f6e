"""Field types, default schedules and the layers that are always kept, shared by the specs of several methods."""

from typing import Literal

from raptr.errors import RaptrError
from raptr.messages import warn
from raptr.plan.shape import ModelShape, StackShape

Sampler = Literal["fixed", "bernoulli"]
"""How many layers a path keeps: exactly the stage's size, or each free layer by itself."""

Scaling = Literal["none", "inverse", "sqrt"]
"""The factor on a kept layer's residual update: 1; 1 / p of its probability; sqrt(L / k) for k of L layers."""

Inverse = Literal["none", "inverse"]
"""Those of them that layer dropping has."""

Redraw = Literal["step", "micro_step"]
"""Whether a path holds for an optimizer step, or for each micro-step where gradients are accumulated."""

HALF_DEPTH = "50%-66.7%-83.3%-100%"
"""The paper's 6-8-10-12 for 12 layers, for any depth."""

FALLING = "-".join(reversed(HALF_DEPTH.split("-")))
"""The same backwards."""


def always_kept(fixed: tuple[int, ...], shape: ModelShape) -> tuple[tuple[int, ...], ...]:
    """The layers of each stack that every path keeps: the fixed ones, and those that the stack requires.

    What is added is said in a warning.

    Args:
        fixed: layers of every stack, negative from the end.
        shape: of the model.

    Raises:
        RaptrError: a fixed layer is out of range.
    """
    result, added = [], []
    for stack in shape.stacks:
        always = _resolved(fixed, stack)
        more = {layer: reason for layer, reason in stack.required if layer not in always}
        added += [f"layer {layer} of {stack.name!r}: {reason}" for layer, reason in more.items()]
        result.append(tuple(sorted({*always, *more})))
    if added:
        warn(
            f"the fixed set was enlarged by layers that cannot be left out ({'; '.join(added)}); "
            "they are kept at every step, and count in the sizes of a schedule.",
            inside=("raptr.plan.",),
        )
    return tuple(result)


def _resolved(fixed: tuple[int, ...], stack: StackShape) -> tuple[int, ...]:
    for layer in fixed:
        if not -stack.layers <= layer < stack.layers:
            raise RaptrError(
                f"fixed layer {layer} is out of range: {stack.name!r} has the layers 0 to {stack.layers - 1} "
                f"(or {-stack.layers} to -1 from the end)."
            )
    return tuple(sorted({layer % stack.layers for layer in fixed}))
