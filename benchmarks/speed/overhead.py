"""What being attached costs a model that skips nothing."""

from typing import Any

import raptr
from raptr.model import find_stacks
from raptr.plan import Full
from speed.cases import Case
from speed.clock import Clock, Variant, in_turn, ratios, scaled, spread
from speed.step import Step


def overhead(case: Case, device: str, rounds: int, clock: Clock, *, bf16: bool, compile: bool) -> dict[str, Any]:
    """The step of an attached full model over that of an untouched one with the same weights.

    The untouched one goes before and after the attached one, which is compared with each of the two, so that a machine
    that becomes slower from turn to turn does not count. (With their mean it would look too fast: that has the slow
    turns of two in it.) After half of the rounds the models change places, so that it does not count either what
    belongs to one of them, as where it lies in memory. The ratio of the second untouched turn to the first says what of
    a difference is noise.
    """
    inputs = case.inputs(device)
    models = [Step(case.build(device), inputs, bf16=bf16) for _ in range(2)]
    seconds: dict[str, list[float]] = {}
    for plain, attached in (models, reversed(models)):
        half = _turns(plain, attached, max(1, rounds // 2), clock, compile=compile)
        seconds = {name: seconds.get(name, []) + times for name, times in half.items()}
    before, after = seconds["untouched"], seconds["untouched again"]
    over = {"untouched": before, "attached": 2 * seconds["attached"], "untouched again": after}
    under = {"untouched": before, "attached": before + after, "untouched again": before}
    return {
        name: {"milliseconds": scaled(spread(times), 1e3), "ratio": ratios(over[name], under[name])}
        for name, times in seconds.items()
    }


def _turns(plain: Step, attached: Step, rounds: int, clock: Clock, *, compile: bool) -> dict[str, list[float]]:
    """Seconds of both, one of them attached meanwhile."""
    if compile:
        for block in find_stacks(plain.model)[0].blocks:
            block.compile()
    net = raptr.attach(attached.model, compile=compile)
    net.prepare(attached.optimizer)
    plan = Full().plan(net.shape, steps=rounds + 2)

    def untouched(turn: int) -> Step:
        return plain

    def full(turn: int) -> Any:
        def run() -> None:
            net.activate(plan, turn)
            attached()

        return run

    variants: dict[str, Variant] = {"untouched": untouched, "attached": full, "untouched again": untouched}
    try:
        return in_turn(variants, rounds, clock)
    finally:
        net.detach()
