"""The cases: what both checkouts run, and where they write what is compared."""

import copy
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sameness.checkout import Checkout, Failed

STORED = Path(__file__).parents[1] / "evidence" / "stored"

REPORTS = (("widths",), ("tuned",), ("64_at_2_lower",), ("tuned", "post_norm"))
"""Stored comparisons whose reports are drawn: of widths, with a sweep, with runs missing, of several comparisons."""

STEPS = 24
HALF = STEPS // 2

RUN: dict[str, Any] = {
    "seed": 0,
    "data": {"source": "../../sources/txt", "tokenizer": 384, "sequence_length": 32},
    "training": {
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 3,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "use_cpu": True,
    },
    "evaluation": {"every": 6, "sequences": 8},
    "checkpoints": {"every": HALF, "keep_last": True},
}
"""What all runs share."""

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}

MODELS: dict[str, dict[str, Any]] = {
    "causal": {
        "model": {"architecture": "llama", "config": SIZES | {"attention_dropout": 0.1}},
        "objective": {"name": "causal"},
    },
    "masked": {
        "model": {"architecture": "bert", "config": SIZES | {"max_position_embeddings": 32}},  # with dropout
        "objective": {"name": "masked", "whole_words": True},
    },
    "denoising": {
        "model": {
            "architecture": "t5",
            "config": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2, "dropout_rate": 0.1},
        },
        "objective": {"name": "denoising", "denoisers": {"R3": 0.5, "X8": 0.25, "S": 0.25}},
        "data": {
            "source": None,
            "sources": {
                "lines": {"path": "../../sources/lines.jsonl.zst"},
                "table": {"path": "../../sources/table.parquet"},
            },
            "mixture": "lines:0.7,table:0.3",
            "sequence_length": 48,
        },
    },
}
"""A model and its text by objective."""

PRE_NORM = {
    "architecture": "modernbert",
    "config": SIZES | {"max_position_embeddings": 32, "attention_dropout": 0.1, "mlp_dropout": 0.1},
}
"""The masked model of PLD, which scales updates: only those of pre-norm layers can be scaled."""

METHODS: dict[str, dict[str, Any]] = {
    "raptr": {"schedule": "2-3-4", "lengths": "proportional", "warmup": 2, "redraw": "micro_step"},
    "gradual_stacking": {"schedule": "2-3-4", "transition_lr": {"rewarm": 2}},
    "pld": {"gamma": 0.1},
    "width_raptr": {"schedule": "50%-75%-100%"},
    "smaller": {},
}

SOURCES = {
    "txt": "../../sources/txt",
    "jsonl.zst": "../../sources/lines.jsonl.zst",
    "parquet": "../../sources/table.parquet",
    "arrow": "../../sources/table.arrow",
}

Pair = tuple[Path, Path]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something that both checkouts do.

    Attributes:
        name: as it is chosen and reported.
        about: what it is, in some words.
        run: does it, and returns the folders to compare: BASE's and the current checkout's.
    """

    name: str
    about: str
    run: Callable[[Checkout, Checkout], Pair]


def config_of(name: str, method: str, objective: str, **training: Any) -> dict[str, Any]:
    """Return the configuration of a run."""
    model = MODELS[objective] | ({"model": PRE_NORM} if (method, objective) == ("pld", "masked") else {})
    entries = {label: METHODS[label] for label in ({"raptr"} if method == "smaller" else set()) | {method}}
    data = {key: value for key, value in {**RUN["data"], **model.get("data", {})}.items() if value is not None}
    config = {**copy.deepcopy(RUN), **model, "data": data, "name": name, "method": method, "methods": entries}
    config["training"] |= training
    return config


def side_by_side(task: Callable[[Checkout], Path], base: Checkout, new: Checkout) -> Pair:
    """Do the same with both checkouts at a time; an error waits until both are done."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(task, base), pool.submit(task, new)
    return first.result(), second.result()


def train(checkout: Checkout, config: dict[str, Any], **options: Any) -> Path:
    """Train a run, or resume it, and return its folder."""
    return _train(checkout, config, checkout.raptr, **options)


def train_on_ranks(checkout: Checkout, config: dict[str, Any]) -> Path:
    """Train a run on two ranks with DDP, and return its folder."""
    return _train(checkout, config, lambda case, *given: checkout.torchrun(case, 2, *given))


def kill_half_way(checkout: Checkout, config: dict[str, Any]) -> Path:
    """Train a run until its first checkpoint is there, kill it, and return its folder."""
    manifest = f"runs/{config['name']}/checkpoints/checkpoint-{config['checkpoints']['every']}"
    return train(checkout, config, kill_at=manifest)


def resume(checkout: Checkout, config: dict[str, Any]) -> Path:
    """Resume a run that was killed, and return its folder.

    Raises:
        Failed: it began from scratch, which ends in the same way and proves nothing; its clock shows it.
    """
    metrics = checkout.work / "runs" / config["name"] / "metrics.jsonl"
    before = metrics.read_bytes().splitlines()[:HALF]
    folder = train(checkout, config)
    if metrics.read_bytes().splitlines()[: len(before)] != before:
        raise Failed(f"{checkout.name}: the run began from scratch and was not resumed")
    return folder


def _train(checkout: Checkout, config: dict[str, Any], command: Callable[..., None], **options: Any) -> Path:
    name = config["name"]
    (checkout.work / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command(name, "train", f"{name}.yaml", "--output", f"runs/{name}", "--cache", "../cache", **options)
    return checkout.work / "runs" / name


def _run(name: str, about: str, config: dict[str, Any], task: Callable[..., Path] = train) -> Case:
    return Case(name=name, about=about, run=lambda *pair: side_by_side(lambda one: task(one, config), *pair))


def _killed(name: str, config: dict[str, Any]) -> Case:
    def task(checkout: Checkout) -> Path:
        kill_half_way(checkout, config)
        return resume(checkout, config)

    return _run(name, "a run that is killed after its first checkpoint, and resumed", config, lambda one, _: task(one))


def _handed_over(name: str, config: dict[str, Any]) -> Case:
    def run(base: Checkout, new: Checkout) -> Pair:
        half = kill_half_way(base, config)
        shutil.copytree(half, new.work / half.relative_to(base.work))
        return side_by_side(lambda one: resume(one, config), base, new)

    return Case(name=name, about="a run that BASE began and was killed in, resumed by both", run=run)


def _tokens(kind: str) -> Case:
    name = f"tokens-{kind}"
    config = {"name": name, "data": {"source": SOURCES[kind], "tokenizer": 384, "sequence_length": 32}}

    def task(checkout: Checkout) -> Path:
        (checkout.work / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        checkout.raptr(name, "data", f"{name}.yaml", "--cache", f"stores/{kind}", "--workers", "2")
        return checkout.work / "stores" / kind

    about = f"the token store of a .{kind} source, with its content hash"
    return Case(name=name, about=about, run=lambda *pair: side_by_side(task, *pair))


def _summaries(name: str) -> Case:
    def task(checkout: Checkout) -> Path:
        output = checkout.work / name
        output.mkdir()
        checkout.summarise(name, STORED, output)
        return output

    about = "summary.json of all comparisons in benchmarks/evidence/stored"
    return Case(name=name, about=about, run=lambda *pair: side_by_side(task, *pair))


def _reports(name: str) -> Case:
    def task(checkout: Checkout) -> Path:
        for names in REPORTS:
            folders = [str(STORED / one) for one in names]
            checkout.raptr(name, "report", *folders, "--output", f"{name}/{'+'.join(names)}")
        return checkout.work / name

    about = "reports of stored comparisons, with the data of their figures"
    return Case(name=name, about=about, run=lambda *pair: side_by_side(task, *pair))


def _compare(name: str) -> Case:
    config = config_of(name, "raptr", "causal", max_steps=HALF) | {"checkpoints": {"every": 1.0}}

    def task(checkout: Checkout) -> Path:
        (checkout.work / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        options = ["--methods", "full,raptr,smaller", "--seeds", "2", "--sweep", "training.learning_rate=1e-2,3e-3"]
        checkout.raptr(name, "compare", f"{name}.yaml", *options, "--output", f"runs/{name}", "--cache", "../cache")
        return checkout.work / "runs" / name

    about = "a comparison of full training, RaPTr and the smaller control, with a sweep"
    return Case(name=name, about=about, run=lambda *pair: side_by_side(task, *pair))


def cases() -> list[Case]:
    """Return all cases."""
    found = [_summaries("summaries"), _reports("reports"), *map(_tokens, SOURCES)]
    for method in ("raptr", "gradual_stacking", "pld"):
        for objective in MODELS:
            name = f"{method}-{objective}"
            more: dict[str, Any] = {"gradient_accumulation_steps": 2} if method == "raptr" else {}
            found.append(_run(name, f"{method}, {objective}", config_of(name, method, objective, **more)))
    long: dict[str, Any] = {"max_steps": 4 * STEPS}
    killed, handed = (
        {**config_of(name, method, objective, **long), "checkpoints": {"every": 2 * STEPS, "keep_last": True}}
        for name, method, objective in (
            ("killed", "raptr", "causal"),
            ("handed-over", "gradual_stacking", "denoising"),
        )
    )
    return [
        *found,
        _run("width", "Width RaPTr", config_of("width", "width_raptr", "causal", peak_flops=1e9)),
        _run("smaller", "the smaller dense control", config_of("smaller", "smaller", "causal")),
        _killed("killed", killed),
        _handed_over("handed-over", handed),
        _compare("compare"),
        _run("ddp", "RaPTr in two processes", config_of("ddp", "raptr", "causal"), train_on_ranks),
    ]
