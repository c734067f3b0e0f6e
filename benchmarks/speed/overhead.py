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

    The untouched one has a second turn in each round: its ratio to the first says what of a difference is noise.
    """
    inputs = case.inputs(device)
    plain, attached = (Step(case.build(device), inputs, bf16=bf16) for _ in range(2))
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
    seconds = in_turn(variants, rounds, clock)
    return {
        name: {"milliseconds": scaled(spread(times), 1e3), "ratio": ratios(times, seconds["untouched"])}
        for name, times in seconds.items()
    }
