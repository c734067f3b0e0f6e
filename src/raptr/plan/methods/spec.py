"""What specs of several methods share: the checks of their fields, and the layers that are always kept."""

import warnings
from collections.abc import Iterable
from typing import Any, Literal, get_args

from raptr.errors import RaptrError
from raptr.plan.schedule import Schedule
from raptr.plan.shape import ModelShape, StackShape
from raptr.plan.transition import TransitionLR

Sampler = Literal["fixed", "bernoulli"]
"""How many layers a path keeps: exactly the stage's size, or each free layer by itself."""

Scaling = Literal["none", "inverse", "sqrt"]
"""The factor on a kept layer's residual update: 1; 1 / p of its probability; sqrt(L / k) for k of L layers."""

Redraw = Literal["step", "micro_step"]
"""Whether a path holds for an optimizer step, or for each micro-step where gradients are accumulated."""

HALF_DEPTH = "50%-66.7%-83.3%-100%"
"""The paper's 6-8-10-12 for 12 layers, for any depth."""

FALLING = "-".join(reversed(HALF_DEPTH.split("-")))
"""The same backwards."""


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse a value that is not one of a field's choices."""
    if value not in choices:
        raise RaptrError(f"{name} {value!r} is not known; expected {' or '.join(map(repr, choices))}.")


def check_seed(seed: Any) -> None:
    """Refuse a seed that the counter-based generator cannot take."""
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise RaptrError(f"seed {seed} is not between 0 and 2**64 - 1.")


def check_share(name: str, value: Any, *, zero: bool = True, one: bool = True) -> None:
    """Refuse a value that is not a share; with ``zero`` and ``one`` these ends are allowed."""
    number = isinstance(value, int | float)
    within = number and (value > 0 or (zero and value == 0)) and (value < 1 or (one and value == 1))
    if not within:
        ends = f"{'from 0' if zero else 'above 0'} {'to 1' if one else 'to below 1'}"
        raise RaptrError(f"{name}={value!r} is not a number {ends}.")


def check_drawn(spec: Any) -> None:
    """Refuse choices and a seed that a spec of random paths cannot have; what it has no field for is passed over."""
    for name, choices in (("sampler", Sampler), ("scaling", Scaling), ("redraw", Redraw)):
        if hasattr(spec, name):
            check_choice(name, getattr(spec, name), get_args(choices))
    check_seed(spec.seed)


def check_transition(transition_lr: Any) -> None:
    """Refuse what is no rule for the learning rate at boundaries."""
    if transition_lr is not None and not isinstance(transition_lr, TransitionLR):
        raise RaptrError(
            f"transition_lr={transition_lr!r} is not a rule; give raptr.plan.TransitionLR(rewarm=100) or (scale=0.5)."
        )


def as_schedule(schedule: Any) -> Schedule:
    """A schedule, or its sizes as text."""
    parsed = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    if not isinstance(parsed, Schedule):
        raise RaptrError(f'schedule {schedule!r} is neither a Schedule nor text such as "6-8-10-12".')
    return parsed


def as_layers(fixed: Any) -> tuple[int, ...]:
    """A fixed set as a spec keeps it; its numbers are looked at when the model is known."""
    if not isinstance(fixed, Iterable) or isinstance(fixed, str):
        raise RaptrError(f"fixed={fixed!r} is not a tuple of layer numbers such as (0, -1).")
    return tuple(fixed)


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
        warnings.warn(
            f"the fixed set was enlarged by layers that cannot be left out ({'; '.join(added)}); "
            "they are kept at every step, and count in the sizes of a schedule.",
            stacklevel=4,
        )
    return tuple(result)


def _resolved(fixed: tuple[int, ...], stack: StackShape) -> tuple[int, ...]:
    for layer in fixed:
        if not isinstance(layer, int) or not -stack.layers <= layer < stack.layers:
            raise RaptrError(
                f"fixed layer {layer} is out of range: {stack.name!r} has the layers 0 to {stack.layers - 1} "
                f"(or {-stack.layers} to -1 from the end)."
            )
    return tuple(sorted({layer % stack.layers for layer in fixed}))
