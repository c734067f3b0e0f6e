"""Does a step that skips layers become as much faster as it has fewer FLOPs?

    eta(k) = (time full / time at k layers) / (FLOPs full / FLOPs at k layers)

of the whole step: forward, backward, clipping, optimizer; the FLOPs are those of everything, the head too. 1 is as
fast as the FLOPs say.
"""

from typing import Any

import raptr
from speed.cases import Case
from speed.clock import Clock, Variant, in_turn, ratios, scaled, spread
from speed.step import Step


def skipping(case: Case, device: str, rounds: int, clock: Clock, *, bf16: bool, compile: bool) -> dict[str, Any]:
    """A row for each stage of the case's schedule; every round has other paths."""
    model = case.build(device)
    step = Step(model, case.inputs(device), bf16=bf16)
    net = raptr.attach(model, compile=compile)
    net.prepare(step.optimizer)
    stages, warmup = case.schedule.split("-"), 2
    plan = case.method().plan(net.shape, steps=len(stages) * (rounds + warmup))

    def at(start: int) -> Variant:
        def ready(turn: int) -> Step:
            net.activate(plan, start + turn)
            return step

        return ready

    variants = {stage.label: at(stage.start) for stage in plan.stages}
    seconds = in_turn(variants, rounds, clock, warmup)
    costs = case.costs()
    full = seconds[stages[-1]]
    rows = {}
    for stage in plan.stages:
        flops = costs.total / costs.step(plan.subnetwork(stage.start))
        times = seconds[stage.label]
        rows[stage.label] = {
            "milliseconds": scaled(spread(times), 1e3),
            "flops_ratio": flops,
            "time_ratio": ratios(full, times),
            "eta": scaled(ratios(full, times), 1 / flops),
        }
    net.detach()
    return {**case.facts(), "teraflops_per_step": costs.total / 1e12, "stages": rows}
