"""How long it takes to choose a subnetwork of a deep model, and to set it."""

import time
from collections.abc import Callable
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

import raptr
from raptr.plan import METHODS, Plan
from speed.clock import scaled, spread

LAYERS = 96

CHOSEN = ("raptr", "layerdrop", "pld", "sequence_layer_dropout")
"""Methods whose choice differs from step to step."""


def choosing(rounds: int, calls: int) -> dict[str, Any]:
    """Microseconds of `plan.subnetwork`, and of `net.activate`, which calls it and sets what it says."""
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        use_cache=False,
    )
    net = raptr.attach(LlamaForCausalLM(config).train())
    plans = {name: METHODS[name]().plan(net.shape, steps=(rounds + 1) * calls) for name in CHOSEN}
    seconds: dict[str, dict[str, list[float]]] = {name: {"choose": [], "choose and set": []} for name in CHOSEN}
    for turn in range(rounds + 1):
        for name, plan in plans.items():
            steps = range(turn * calls, (turn + 1) * calls)
            for what, run in (("choose", plan.subnetwork), ("choose and set", setter(net, plan))):
                taken = each(run, steps)
                if turn:  # the first one warms up, and checks the plan
                    seconds[name][what].append(taken)
    net.detach()
    return {
        name: {what: scaled(spread(times), 1e6) for what, times in found.items()} for name, found in seconds.items()
    }


def setter(net: raptr.AttachedModel, plan: Plan) -> Callable[[int], object]:
    """`net.activate` of a plan."""
    return lambda step: net.activate(plan, step)


def each(run: Callable[[int], object], steps: range) -> float:
    """Seconds of one call, of this thread's processor time."""
    start = time.thread_time()
    for step in steps:
        run(step)
    return (time.thread_time() - start) / len(steps)
