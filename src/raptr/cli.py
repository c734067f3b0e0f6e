"""`raptr <verb>`: parse, call, print.

Heavy rooms are imported inside the verbs, so that `raptr --help` and `raptr plan --layers 12` answer
at once.
"""

import os
import shlex
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from raptr.errors import RaptrError

app = typer.Typer(
    name="raptr",
    help="Progressive subnetwork training: pretrain transformers for less.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="A YAML file or a preset's name (default: the preset 'demo'), then values to override in it, "
        "e.g. training.max_steps=100.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The folder to write to. Default: runs/<name>.", show_default=False),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Where tokenized data is kept. Default: $RAPTR_CACHE or ~/.cache/raptr.", show_default=False),
]


class BudgetChoice(StrEnum):
    """What a comparison holds equal."""

    flops = "flops"
    steps = "steps"
    tokens = "tokens"


class SamplerChoice(StrEnum):
    """How paths are drawn."""

    fixed = "fixed"
    bernoulli = "bernoulli"


@app.command()
def plan(
    arguments: Arguments = None,
    layers: Annotated[
        int | None, typer.Option(help="Layers of a model, instead of CONFIG.", show_default=False)
    ] = None,
    schedule: Annotated[str, typer.Option(help="Stage sizes: '6-8-10-12' or '50%-75%-100%'.")] = "6-8-10-12",
    steps: Annotated[int, typer.Option(help="Steps of the run.")] = 1000,
    lengths: Annotated[str, typer.Option(help="'equal', 'proportional', or by stage: '100-200-700'.")] = "equal",
    warmup: Annotated[str, typer.Option(help="Full-model steps that come first: a count, or '10%'.")] = "0",
    fixed: Annotated[str, typer.Option(help="Layers that are always kept.")] = "0,-1",
    sampler: Annotated[SamplerChoice, typer.Option(help="How paths are drawn.")] = SamplerChoice.fixed,
) -> None:
    """Show the stages of a run and what they are expected to save; nothing is trained.

    `raptr plan CONFIG` plans a config's run with its model's FLOPs; `raptr plan --layers 12 --schedule 6-8-10-12`
    needs no model.
    """
    from raptr import terminal

    if layers is not None:
        if arguments:
            raise RaptrError(f"--layers and the config {arguments[0]!r} were given; give one of them.")
        from raptr.plan import ModelShape, RaPTr, Schedule

        parsed = Schedule.parse(schedule, lengths=terminal.parse_lengths(lengths), warmup=terminal.parse_warmup(warmup))
        method = RaPTr(parsed, fixed=terminal.parse_layers(fixed), sampler=sampler.value)
        terminal.show_plan(_console(), str(method), method.plan(ModelShape.of(layers=layers), steps), None)
        return
    from raptr.train.plan import plan_run

    config = _load(arguments)
    label, bound, costs = plan_run(config)
    terminal.show_plan(_console(), label, bound, costs)


@app.command()
def data(arguments: Arguments = None, cache: Cache = None) -> None:
    """Prepare a config's data (text to tokens on disk) and describe it."""
    from raptr import terminal
    from raptr.data import Sequences
    from raptr.train.task import prepare_data

    config = _load(arguments)
    store = prepare_data(config, _cache(cache))
    counts = {
        "training sequences": len(Sequences(store.train, config.data.sequence_length)),
        "validation sequences": len(Sequences(store.validation, config.data.sequence_length)),
    }
    terminal.show_facts(_console(), {**store.description, "sequence length": config.data.sequence_length, **counts})


@app.command()
def train(arguments: Arguments = None, output: Output = None, cache: Cache = None) -> None:
    """Train a config's model with its method, and write a report."""
    _quiet()
    from raptr import terminal
    from raptr.train.engine import train as run
    from raptr.train.task import prepare_task

    config = _load(arguments)
    folder = output or Path("runs") / f"{config.name}-{config.method}-seed{config.seed}"
    console = _console(stderr=True)
    result = run(prepare_task(config, _cache(cache)), folder, console=console, command=_command())
    terminal.show_result(_console(), result)
    _console().print(f"model: {folder / 'model'}", highlight=False, soft_wrap=True)
    _write_report(folder)


@app.command()
def compare(
    arguments: Arguments = None,
    methods: Annotated[str, typer.Option(help="Methods, or entries of the config's `methods`.")] = "full,raptr",
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    budget: Annotated[BudgetChoice, typer.Option(help="What is held equal.")] = BudgetChoice.flops,
    output: Output = None,
    cache: Cache = None,
) -> None:
    """Train several methods with several seeds under one budget, and write a report.

    Finished runs are kept: the same command again goes on where it was.
    """
    _quiet()
    from raptr import terminal
    from raptr.compare import compare as run

    config = _load(arguments)
    folder = output or Path("runs") / config.name
    summary = run(
        config,
        methods=[name.strip() for name in methods.split(",") if name.strip()],
        seeds=seeds,
        budget=budget.value,
        folder=folder,
        cache=_cache(cache),
        console=_console(stderr=True),
        command=_command(),
    )
    terminal.show_summary(_console(), summary)
    _write_report(folder)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run's or a comparison's folder.")]) -> None:
    """Draw a folder's report again from its files."""
    _write_report(folder)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        import raptr

        print(f"raptr {raptr.__version__}")
        raise typer.Exit


def main() -> None:
    """The `raptr` command: exit code 2 and one message for what a user can mend, no traceback."""
    try:
        app()
    except RaptrError as error:
        if os.environ.get("RAPTR_TRACEBACK"):
            traceback.print_exc()
        Console(stderr=True).print(f"raptr: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("raptr: interrupted; finished runs are kept.", highlight=False)
        sys.exit(130)


def _load(arguments: list[str] | None) -> Any:
    from raptr.config import load

    given = list(arguments or [])
    source = given.pop(0) if given and "=" not in given[0] else "demo"
    return load(source, given)


def _cache(given: Path | None) -> Path:
    if given is not None:
        return given
    if "RAPTR_CACHE" in os.environ:
        return Path(os.environ["RAPTR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raptr"


def _write_report(folder: Path) -> None:
    from raptr.report import write_report

    with _console(stderr=True).status("drawing the report ..."):
        path = write_report(folder)
    _console().print(f"report: {path}", highlight=False, soft_wrap=True)


def _command() -> str:
    return shlex.join(["raptr", *sys.argv[1:]])


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=140)


def _quiet() -> None:
    """Leave the screen to raptr's own progress and errors."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
