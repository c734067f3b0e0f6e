"""A tiny run of every method, and what kind of method each is by its plan."""

from typing import Any

from helpers.runs import tiny
from raptr import Subnetwork
from raptr.config import RunConfig
from raptr.plan import METHODS, LayerCosts, ModelShape, Plan

LAYERS = 4
MODEL = {
    "architecture": "llama",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
}
SETTINGS_OF: dict[str, dict[str, Any]] = {
    "raptr": {"schedule": "2-3-4", "fixed": [0], "scaling": "sqrt"},
    "depth_width_raptr": {"fixed": [0]},
    "gradual_stacking": {"transition_lr": {"rewarm": 3}},
    "midas": {"state": "reset", "transition_lr": {"scale": 0.5}},
    "late_expansion": {"layers": 0, "new": "silent"},
    "pld": {"gamma": 0.2},
    "gstack": {"growth": 2, "at": 0.5},
}
"""Settings of a method where its defaults would show too little in so few layers and steps."""

STEPS = 12


def config_of(method: str, **changes: Any) -> RunConfig:
    """The tiny configuration of a method, on the model here; changes as `helpers.runs.tiny` takes them."""
    values: dict[str, Any] = {
        "method": method,
        "methods": {method: SETTINGS_OF.get(method, {})},
        "model": MODEL,
        "training__max_steps": STEPS,
    }
    return tiny(**{**values, **changes})


def plan_of(method: str) -> Plan:
    """The plan of a method with its settings here, for the shape of this model."""
    shape = ModelShape.of(layers=LAYERS, heads=4, neurons=32)
    return config_of(method).build_method().plan(shape, STEPS)


def full_step(method: str) -> int | None:
    """The last step at which the whole model runs; None if there is none."""
    plan = plan_of(method)
    steps = (step for step in reversed(range(STEPS)) if plan.subnetwork(step) == Subnetwork.full(plan.shape))
    return next(steps, None)


def grows(method: str) -> bool:
    """Whether a method has layers that no step trains before its last boundary."""
    plan = plan_of(method)
    return not all(p for stack in plan.keep(plan.stages[0]) for p in stack) and plan.stages[-1].start in {
        step for step in range(STEPS) if plan.subnetwork(step) != plan.subnetwork(0)
    }


def costs_differ(method: str) -> bool:
    """Whether steps of one stage do not all cost the same."""
    plan = plan_of(method)
    costs = LayerCosts.uniform(plan.shape)
    found = {(plan.stage(step), round(costs.of_layers(plan.subnetwork(step), plan.shape), 9)) for step in range(STEPS)}
    return len(found) > len(plan.stages)


GROWING = tuple(filter(grows, METHODS))
"""Methods that make the model larger, told by their plans."""

DROPPING = tuple(filter(costs_differ, METHODS))
"""Methods whose steps cost what they draw, told by their plans."""
