"""What is aimed at, and what was found of it: each target reads its number from the answers of a benchmark."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from speed.choosing import LAYERS

Answers = Mapping[str, Any]
"""The results of a benchmark by question; a question that was not asked is missing."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A target, and the number that was found.

    Attributes:
        what: is measured, of which model.
        aim: in words.
        value: what was found.
        met: whether it meets the aim.
    """

    what: str
    aim: str
    value: float
    met: bool


def found(answers: Answers, device: str) -> Iterator[Found]:
    """All targets of a device, "cpu" or "gpu", of which something was measured."""
    yield from skipping(answers, least=0.97 if device == "gpu" else 0.93)
    yield from attached(answers)
    yield from activations(answers)
    yield from graphs(answers)
    yield from choosing(answers)
    if device == "gpu":
        yield from saving(answers)
        yield from engine(answers)
        yield from utilisation(answers)


def skipping(answers: Answers, least: float) -> Iterator[Found]:
    """Of each model, the stage with the lowest efficiency, of those that skip: the whole model's is 1 by definition."""
    for case, answer in answers.get("skipping", {}).items():
        value = min(row["eta"]["median"] for row in answer["stages"].values() if row["flops_ratio"] != 1)
        yield at_least(f"eta, the lowest stage of {answer['schedule']} that skips: {case}", value, least)


def attached(answers: Answers) -> Iterator[Found]:
    """Attached, and skipping nothing."""
    for case, rows in answers.get("overhead", {}).items():
        yield at_most(f"time attached / untouched: {case}", rows["attached"]["ratio"]["median"], 1.01)


def activations(answers: Answers) -> Iterator[Found]:
    """Of each model, the stage farthest from proportional."""
    for case, rows in answers.get("memory", {}).items():
        value = max(abs(row["saved_over_proportional"] - 1) for row in rows.values())
        yield at_most(f"saved activations, away from proportional: {case}", value, 0.05)


def graphs(answers: Answers) -> Iterator[Found]:
    """One for each class, mode and shape, all of them in the first stage."""
    for case, answer in answers.get("graphs", {}).items():
        first, *later = answer["by_stage"].values()
        aim = f"{answer['expected']}, none after the first stage"
        met = first == answer["expected"] and not any(later)
        yield Found(what=f"graphs compiled in a run: {case}", aim=aim, value=answer["graphs"], met=met)


def choosing(answers: Answers) -> Iterator[Found]:
    """Microseconds of each method."""
    for method, times in answers.get("choosing", {}).items():
        yield below(f"microseconds to choose and set, {LAYERS} layers: {method}", times["choose and set"]["median"], 50)


def saving(answers: Answers) -> Iterator[Found]:
    """A whole run, on the clock."""
    for case, answer in answers.get("runs", {}).items():
        what = f"time of full training / of RaPTr {answer['schedule']}, whole runs: {case}"
        yield at_least(what, answer["saving_on_the_clock"]["median"], 1.30)


def engine(answers: Answers) -> Iterator[Found]:
    """What `raptr train` adds to a plain loop."""
    for case, answer in answers.get("runs", {}).items():
        yield at_most(f"time of raptr train / of a plain loop: {case}", answer["engine_over_plain"]["median"], 1.02)


def utilisation(answers: Answers) -> Iterator[Found]:
    """FLOPs of the model a second, as a share of the measured peak of a matrix product."""
    for case, least in (("Llama-1B", 0.50), ("BERT-base", 0.45)):
        if case in answers.get("skipping", {}) and "peak" in answers:
            yield at_least(f"utilisation of full training: {case}", of_peak(answers, case), least)


def of_peak(answers: Answers, case: str) -> float:
    """The share of the measured peak that a full step of a case reaches."""
    answer = answers["skipping"][case]
    *_, full = answer["stages"].values()
    rate = answer["teraflops_per_step"] / (full["milliseconds"]["median"] / 1e3)
    return float(rate / answers["peak"]["teraflops"])


def at_least(what: str, value: float, least: float) -> Found:
    """A number that should not be lower."""
    return Found(what=what, aim=f"at least {least:g}", value=value, met=value >= least)


def at_most(what: str, value: float, most: float) -> Found:
    """A number that should not be higher."""
    return Found(what=what, aim=f"at most {most:g}", value=value, met=value <= most)


def below(what: str, value: float, limit: float) -> Found:
    """A number that should be lower."""
    return Found(what=what, aim=f"below {limit:g}", value=value, met=value < limit)
