"""Variants that take turns in one process, and what is said of their times.

A machine that slows down slows all variants of a round, so ratios are taken within a round and only then summarised.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles

import torch

Variant = Callable[[int], Callable[[], object]]
"""Made ready for a round, untimed; what comes back is timed."""


class Clock:
    """Seconds, of work that has ended.

    On a GPU the wall clock, after all that was queued is done. On the CPU the wall clock too; with one thread that
    thread's processor time, which is what the wall shows on a machine that nobody else uses.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._own = not self._cuda and torch.get_num_threads() == 1
        self.name = "processor time of one thread" if self._own else "wall"

    def __call__(self) -> float:
        """Now."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.process_time() if self._own else time.perf_counter()


def in_turn(variants: Mapping[str, Variant], rounds: int, clock: Clock, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each variant in each round; the first rounds warm up and are left out."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, ready in variants.items():
            run = ready(turn)
            start = clock()
            run()
            stop = clock()
            if turn >= warmup:
                seconds[name].append(stop - start)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": median(values), "low": low, "high": high}


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within a round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def scaled(found: Mapping[str, float], factor: float) -> dict[str, float]:
    """A spread in another unit."""
    return {name: value * factor for name, value in found.items()}
