"""What the guide to engines says can be combined: mixed precision, accumulation, checkpointing, layers compiled."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.engine_runs import changes_of, train_on_two_ranks
from helpers.runs import metrics, run, tiny

pytestmark = pytest.mark.slow

ACCUMULATED: dict[str, Any] = {"training__gradient_accumulation_steps": 2}
CHECKPOINTED: dict[str, Any] = {"training__activation_checkpointing": True}
COMPILED: dict[str, Any] = {"training__torch_compile": True}
HALF: dict[str, Any] = {"training__bf16": True, "training__use_cpu": True}
PROBED: dict[str, Any] = {"training__probe_memory": True}
REDRAWN: dict[str, Any] = {"methods__raptr": {"schedule": "2-3-4", "redraw": "micro_step", "fixed": []}}
COMBINATIONS: dict[str, tuple[dict[str, Any], float]] = {
    "checkpointed": (CHECKPOINTED | ACCUMULATED | PROBED, 1e-4),
    "redrawn": (REDRAWN | CHECKPOINTED | ACCUMULATED, 1e-4),
    "compiled": (COMPILED | ACCUMULATED, 1e-4),
    "half": (HALF | ACCUMULATED, 5e-3),
    "all": (HALF | COMPILED | CHECKPOINTED | ACCUMULATED | PROBED, 5e-3),
}
"""Settings, and how near the losses of two ranks are to those of one process."""

COMBINED = {"fsdp2": ("checkpointed", "redrawn", "all"), "ddp": ("redrawn", "all")}
"""What each engine trains: the last one stands for what it is made of, of which each is on by the test below."""


def settings(name: str, engine: str) -> dict[str, Any]:
    base = changes_of("causal", engine)
    return base | COMBINATIONS[name][0] | {"training__max_steps": 4, "evaluation__every": 4}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Every combination in one process, and none of them."""
    folder = tmp_path_factory.mktemp("single")
    compile_ = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda f, *a, **k: compile_(f, *a, **{"backend": "aot_eager"} | k))
        for name in COMBINATIONS:
            run(tiny(**settings(name, "single")), folder / name, cache)
    none = settings("checkpointed", "single") | {"training__activation_checkpointing": False}
    run(tiny(**none), folder / "none", cache)
    return folder


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_two_ranks_train_what_one_process_trains(engine: str, single: Path, tmp_path: Path, cache: Path) -> None:
    jobs = {name: {"changes": settings(name, engine)} for name in COMBINED[engine]}
    if engine == "fsdp2":
        own = {"training__fsdp_config": {"activation_checkpointing": True, "reshard_after_forward": False}}
        jobs["checkpointed"]["changes"] |= own | {"training__activation_checkpointing": False}
    seen = train_on_two_ranks(tmp_path, engine, cache, jobs)
    for name in COMBINED[engine]:
        tolerance = COMBINATIONS[name][1]
        assert "refused" not in seen[name][0], seen[name][0]
        assert set(seen[name][0]["sharded"]) == {engine == "fsdp2"}, name
        ours, theirs = (metrics(folder / name, "train") for folder in (tmp_path, single))
        for key, rel in (("loss", tolerance), ("grad_norm", 10 * tolerance)):
            assert [line[key] for line in ours] == pytest.approx([line[key] for line in theirs], rel=rel), (name, key)
        assert [line["layers"] for line in ours] == [line["layers"] for line in theirs]


def test_what_is_combined_is_really_on(single: Path) -> None:
    losses = {name: [line["loss"] for line in metrics(single / name, "train")] for name in (*COMBINATIONS, "none")}
    for name in ("checkpointed", "compiled"):
        assert losses[name] == pytest.approx(losses["none"], rel=1e-6), name
    for name in ("half", "all"):
        assert losses[name] == pytest.approx(losses["none"], rel=1e-2), name
        assert losses[name] != pytest.approx(losses["none"], rel=1e-6), "control: bf16 rounds"
    assert losses["redrawn"] != pytest.approx(losses["none"], rel=1e-5), "control: other paths"
