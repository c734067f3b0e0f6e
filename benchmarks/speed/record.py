"""Questions asked one after the other, and what they leave behind: answers with the machine they belong to."""

import gc
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from raptr.train.collect_run_info import describe_environment

RESULTS = Path(__file__).parents[1] / "results"


def ask(questions: Mapping[str, Callable[[], Any]], only: Sequence[str] | None) -> dict[str, Any]:
    """The answers to all questions, or to some; each is printed when it is there."""
    unknown = sorted({*(only or ())} - questions.keys())
    if unknown:
        raise SystemExit(f"no question {', '.join(unknown)}; there are: {', '.join(questions)}")
    disable_progress_bar()
    disable_progress_bars()
    answers = {}
    for name in only or questions:
        start = time.monotonic()
        answers[name] = questions[name]()
        print(
            f"{name}, in {time.monotonic() - start:.0f} s\n{json.dumps(rounded(answers[name]), indent=1)}", flush=True
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        torch._dynamo.reset()
    return answers


def rounded(answer: Any) -> Any:
    """For reading: four digits of every number."""
    if isinstance(answer, Mapping):
        return {name: rounded(value) for name, value in answer.items()}
    return float(f"{answer:.4g}") if isinstance(answer, float) else answer


def record(results: dict[str, Any], output: Path, only: Sequence[str] | None, **facts: Any) -> None:
    """Write results as JSON, with the command that was given, where it ran, and how busy the machine was.

    Where only some questions were asked, the file's other answers stay, and these are kept with a command and a machine
    of their own.
    """
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    machine = {**describe_environment(), **facts, "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None}
    if torch.cuda.is_available():
        machine["cuda"] = torch.version.cuda
    output.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"command": command, "machine": machine, "results": results}
    if only and output.exists():
        before = json.loads(output.read_text(encoding="utf-8"))
        if before["machine"]["tiny"] == machine["tiny"]:
            own = {name: {"command": command, "machine": machine} for name in results}
            content = {
                **before,
                "results": {**before["results"], **results},
                "again": {**before.get("again", {}), **own},
            }
    output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
