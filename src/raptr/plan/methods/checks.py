"""What specs of several methods share: the checks of their fields, and the layers that are always kept."""

import inspect
import operator
import warnings
from typing import Any, Literal, get_args

from raptr.errors import RaptrError
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.schedule import Schedule
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


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse a value that is not one of a field's choices."""
    if value not in choices:
        raise RaptrError(f"{name} {value!r} is not known; expected {' or '.join(map(repr, choices))}.")


def check_seed(seed: Any) -> None:
    """Refuse a seed that the counter-based generator cannot take."""
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise RaptrError(f"seed {seed!r} is not a whole number between 0 and 2**64 - 1.")


def check_count(name: str, value: Any, *, least: int) -> None:
    """Refuse a value that is not a whole number from ``least`` to 1000."""
    if not isinstance(value, int) or not least <= value <= 1000:
        raise RaptrError(f"{name}={value!r} is not a whole number from {least} to 1000.")


def check_share(name: str, value: Any, *, least: float = 0.0, one: bool = True) -> None:
    """Refuse a value that is not a number from ``least`` to 1; with ``one=False``, 1 is refused too."""
    if not isinstance(value, int | float) or not least <= value <= 1 or (value == 1 and not one):
        raise RaptrError(f"{name}={value!r} is not a number from {least:g} to {'' if one else 'below '}1.")


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


def warn(message: str) -> None:
    """Warn at the line that asked for the plan, whatever lies between."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("raptr.plan"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def as_schedule(schedule: Any) -> Schedule:
    """A schedule, or its sizes as text."""
    parsed = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    if not isinstance(parsed, Schedule):
        raise RaptrError(f'schedule {schedule!r} is neither a Schedule nor text such as "6-8-10-12".')
    return parsed


def as_layers(fixed: Any) -> tuple[int, ...]:
    """A fixed set as a spec keeps it; whether there are such layers is asked when the model is known."""
    try:
        return tuple(map(operator.index, fixed))
    except TypeError as error:
        raise RaptrError(f"fixed={fixed!r} is not a tuple of layer numbers such as (0, -1).") from error


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
            "they are kept at every step, and count in the sizes of a schedule."
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
