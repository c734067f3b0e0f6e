"""Every method with its defaults and several other settings, each with a shape that it fits: what matrices run over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from raptr.plan import METHODS, ModelShape, Schedule, StackShape, TransitionLR

BIAS = "it makes position_bias, which later layers receive"


def two_stacks(encoder: int, decoder: int, *required: int) -> ModelShape:
    """A shape as T5 has it: two stacks, of which the first layers make what the others need."""
    needed = tuple((layer, BIAS) for layer in required)
    return ModelShape(
        (
            StackShape("encoder.block", encoder, needed, heads=4, neurons=24),
            StackShape("decoder.block", decoder, needed, heads=4, neurons=24),
        )
    )


TWELVE = ModelShape.of(layers=12, heads=4, neurons=24)
T5 = two_stacks(12, 8, 0)
EQUAL = two_stacks(6, 6, 0)
UNEVEN = two_stacks(8, 4)
ODD = ModelShape.of(layers=7, heads=5, neurons=9)
REWARM, HALVE = TransitionLR(rewarm=5), TransitionLR(scale=0.5)


def proportional(text: str, alpha: float = 1.0, warmup: int | float = 0) -> Schedule:
    """Stages whose lengths rise with their number."""
    return Schedule.parse(text, lengths="proportional", alpha=alpha, warmup=warmup)


@dataclass(frozen=True)
class Case:
    """A method with some of its settings, and a shape that it fits."""

    key: str
    settings: tuple[tuple[str, Any], ...]
    shape: ModelShape

    @property
    def method(self) -> Any:
        """The spec."""
        return METHODS[self.key](**dict(self.settings))

    def with_settings(self, **settings: Any) -> Any:
        """The spec with some settings changed."""
        return METHODS[self.key](**{**dict(self.settings), **settings})

    def __str__(self) -> str:
        said = ",".join(f"{name}={value}" for name, value in self.settings)
        return f"{self.key}({said}) of {'+'.join(map(str, self.shape.layers))}"


def case(key: str, shape: ModelShape = TWELVE, **settings: Any) -> Case:
    """A `Case` from keywords."""
    return Case(key, tuple(settings.items()), shape)


RANDOM_PATHS = [
    case("raptr"),
    case("raptr", sampler="bernoulli", seed=3),
    case("raptr", scaling="inverse", seed=2**63),
    case("raptr", scaling="sqrt", sampler="bernoulli"),
    case("raptr", redraw="micro_step", transition_lr=REWARM),
    case("raptr", schedule="6-9-12", fixed=((0, 1, -1), (0, -1), ())),
    case("raptr", schedule=Schedule.parse("6-9-12", warmup=0.1), fixed=((3, 4), (0,), ()), scaling="inverse"),
    case("raptr", schedule=proportional("6-8-10-12", alpha=2.0, warmup=7), transition_lr=HALVE),
    case("raptr", schedule="1-12", fixed=(), sampler="bernoulli", scaling="inverse"),
    case("raptr", schedule="2-12"),
    case("raptr", T5, scaling="sqrt"),
    case("raptr", EQUAL, schedule="3-6", fixed=(0, 2)),
    case("raptr", ODD),
    case("raptr", ModelShape.of(layers=2), schedule="1-2", fixed=(0,)),
    case("raptr", ModelShape.of(layers=1)),
    case("constant_size"),
    case("constant_size", size="7", sampler="bernoulli", scaling="inverse"),
    case("constant_size", T5, size="60%", redraw="micro_step", scaling="sqrt"),
    case("constant_size", ODD, size="5", fixed=()),
    case("constant_size", ModelShape.of(layers=1), size="100%"),
    case("reversed"),
    case("reversed", schedule="12-10-8-6", sampler="bernoulli", transition_lr=REWARM),
    case("reversed", T5, schedule=Schedule.parse("100%-75%-50%", warmup=5), scaling="inverse"),
    case("reversed", ODD, redraw="micro_step"),
]

WIDTHS = [
    case("width_raptr"),
    case("width_raptr", narrowed="heads", scaling="inverse"),
    case("width_raptr", narrowed="neurons", scaling="sqrt", redraw="micro_step", seed=9),
    case("width_raptr", T5, schedule=proportional("25%-50%-100%", warmup=4), transition_lr=HALVE),
    case("width_raptr", ODD, schedule="1%-33.3%-100%"),
    case("width_raptr", ModelShape.of(layers=1, heads=1, neurons=3)),
    case("depth_width_raptr"),
    case("depth_width_raptr", schedule="6-12", width="50%-100%", fixed=(), scaling="sqrt", seed=4),
    case("depth_width_raptr", T5, schedule="50%-75%-100%", width="25%-50%-100%", scaling="inverse"),
    case("depth_width_raptr", ODD, schedule=Schedule.parse("3-5-7", warmup=0.1), width="50%-100%-100%", seed=1),
    case("depth_width_raptr", redraw="micro_step", narrowed="neurons", transition_lr=REWARM),
]

DROPPED = [
    case("layerdrop"),
    case("layerdrop", rate=0.5, scaling="inverse", fixed=(0, -1)),
    case("layerdrop", T5, rate=0.3, redraw="micro_step"),
    case("layerdrop", ModelShape.of(layers=1), rate=0.9),
    case("layerdrop", rate=0),
    case("stochastic_depth"),
    case("stochastic_depth", ODD, last=0.2, scaling="none", seed=8),
    case("stochastic_depth", T5, last=1),
    case("stochastic_depth", UNEVEN, last=0.4, fixed=(1, -1)),
    case("pld", gamma=0.02),
    case("pld"),
    case("pld", gamma=0.02, variant="deepspeed"),
    case("pld", T5, theta=0.3, gamma=1.0, scaling="none", redraw="micro_step"),
    case("pld", UNEVEN, theta=0.2, gamma=0.05, variant="deepspeed", fixed=(1,)),
    case("pld", ModelShape.of(layers=1), theta=0.5, gamma=0.1),
]

BY_SEQUENCE = [
    case("sequence_layer_dropout"),
    case("sequence_layer_dropout", T5, rate=0.4, redraw="step"),
    case("sequence_layer_dropout", ODD, rate=0.5, scaling="none", fixed=(-1,)),
    case("sequence_layer_dropout", ModelShape.of(layers=1), rate=0.5),
    case("sequence_layer_dropout", rate=0),
]

GROWING = [
    case("gradual_stacking"),
    case("gradual_stacking", schedule="6-9-12", state="reset", transition_lr=REWARM),
    case("gradual_stacking", ODD, schedule=proportional("4-6-7", alpha=0.5)),
    case("gradual_stacking", T5, schedule="50%-75%-100%"),
    case("gradual_stacking", ModelShape.of(layers=1), schedule="1"),
    case("progressive_stacking"),
    case("progressive_stacking", T5, doublings=1, lengths=(0.25, 0.75)),
    case("progressive_stacking", ModelShape.of(layers=2), doublings=5),
    case("progressive_stacking", lengths="proportional", state="reset", transition_lr=HALVE),
    case("midas"),
    case("midas", schedule="3-6-9-12", state="reset"),
    case("midas", ODD, schedule=proportional("3-5-7", alpha=2.0)),
    case("midas", T5, schedule="25%-50%-75%-100%", transition_lr=HALVE),
    case("midas", ModelShape.of(layers=2), schedule="1-2"),
    case("gstack"),
    case("gstack", growth=12, at=0.5, state="reset"),
    case("gstack", T5, growth=2, at=0.3, transition_lr=REWARM),
    case("gstack", ODD, growth=7),
    case("late_expansion"),
    case("late_expansion", layers=0, new="silent", at=0.5),
    case("late_expansion", layers=0, new="fresh"),
    case("late_expansion", T5, layers=3, state="reset", transition_lr=HALVE),
    case("late_expansion", ODD, layers=6, new="silent"),
    case("late_expansion", ModelShape.of(layers=2), layers=1, new="fresh"),
]

WRITTEN = [case("full"), case("full", T5), *RANDOM_PATHS, *WIDTHS, *DROPPED, *BY_SEQUENCE, *GROWING]
"""The cases written by hand."""


def derived_cases(key: str) -> Iterator[Case]:
    """The cases of a method that has none above: its defaults for one and two stacks, and each other choice."""
    spec = METHODS[key]
    yield case(key)
    yield case(key, T5)
    hints, names = get_type_hints(spec), [field.name for field in fields(spec)]
    for name in names:
        if get_origin(hints[name]) is Literal:
            default = getattr(spec(), name)
            yield from (case(key, **{name: choice}) for choice in get_args(hints[name]) if choice != default)
    others = {"seed": 2**63, "fixed": (0, -1), "transition_lr": REWARM}
    yield from (case(key, T5, **{name: value}) for name, value in others.items() if name in names)


DERIVED = [one for key in METHODS if not any(one.key == key for one in WRITTEN) for one in derived_cases(key)]
"""The cases of methods that have none above."""

CASES = [*WRITTEN, *DERIVED]
"""All of them: what matrices run over."""
