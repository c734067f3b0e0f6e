"""`raptr <verb>`: parse, call, print.

Heavy rooms are imported inside the verbs, so that `raptr --help` and `raptr plan --layers 12` answer
at once.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from raptr.cli.exit_codes import ended, interruptible, shortly
from raptr.cli.options import Arguments, Cache, MaxMinutes, Output, Strict, Workers, cache_folder, names_in
from raptr.errors import RaptrError


class _Verbs(TyperGroup):
    """The verbs, with short messages about arguments that none of them takes."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read what comes before the verb."""
        with shortly():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Read the verb's arguments, and run it."""
        with shortly():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Verbs,
    name="raptr",
    help="Progressive subnetwork training: pretrain transformers for less.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class BudgetChoice(StrEnum):
    """What a comparison holds equal."""

    flops = "flops"
    steps = "steps"
    tokens = "tokens"
    seconds = "seconds"


class SamplerChoice(StrEnum):
    """How paths are drawn."""

    fixed = "fixed"
    bernoulli = "bernoulli"


@app.command()
def plan(
    arguments: Arguments = None,
    layers: Annotated[int | None, typer.Option(help="Layers, instead of a CONFIG.")] = None,
    method: Annotated[str | None, typer.Option(help="A method's name (default raptr); see `raptr methods`.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Stage sizes: '6-8-10-12' or '50%-75%-100%'.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the run (default 1000).")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="'equal' (default), 'proportional', or by stage: '100-200-700', '10%-20%-70%'.")
    ] = None,
    warmup: Annotated[str | None, typer.Option(help="Full-model steps that come first: a count, or '10%'.")] = None,
    fixed: Annotated[str | None, typer.Option(help="Layers that are always kept (default 0,-1).")] = None,
    sampler: Annotated[SamplerChoice | None, typer.Option(help="How paths are drawn (default fixed).")] = None,
) -> None:
    """Show the stages of a run and what they are expected to save; nothing is trained.

    `raptr plan CONFIG` plans a config's run with its model's FLOPs; `raptr plan --layers 12 --schedule 6-8-10-12`
    and `raptr plan --layers 12 --method layerdrop rate=0.3` need no model.
    """
    from raptr.cli import show

    options = {"schedule": schedule, "lengths": lengths, "warmup": warmup, "fixed": fixed, "sampler": sampler}
    given = [name for name, value in {**options, "method": method, "steps": steps}.items() if value is not None]
    if layers is None and given:
        instead = {"method": "method=...", "steps": "training.max_steps=..."}
        raise RaptrError(
            f"--{given[0]} belongs to --layers; with a config give "
            f"{instead.get(given[0], f'methods.raptr.{given[0]}=...')} instead."
        )
    if layers is not None:
        if arguments and "=" not in arguments[0]:
            raise RaptrError(f"--layers and the config {arguments[0]!r} were given; give one of them.")
        from raptr.config import with_settings
        from raptr.plan import ModelShape

        settings: dict[str, Any] = {
            "schedule": schedule if method or schedule or layers != 12 else "6-8-10-12",  # None: the method's own
            "lengths": None if lengths is None else show.parse_lengths(lengths),
            "warmup": None if warmup is None else show.parse_warmup(warmup),
            "fixed": None if fixed is None else show.parse_layers(fixed),
            "sampler": None if sampler is None else sampler.value,
        }
        spec = with_settings(method or "raptr", settings, arguments or [])
        shape = ModelShape.of(layers=layers, heads=64, neurons=64)  # of which shares are taken: any number would do
        show.show_plan(_console(), str(spec), spec.plan(shape, 1000 if steps is None else steps), None)
        return
    from raptr.cli.outlook import outlook_of
    from raptr.train.task import plan_run

    config = _load(arguments)
    run = plan_run(config)
    outlook = outlook_of(run, config.settings(config.method))
    show.show_plan(_console(), run.name, run.plan, run.costs, outlook)


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A method, to show its card.", show_default=False)
    ] = None,
) -> None:
    """List the methods, or show the card of one: formula, settings, cost, what was measured, limits."""
    from raptr.cli import show_lists
    from raptr.config import catalogue

    if name is None:
        show_lists.show_methods(_console(), catalogue.entries())
    else:
        show_lists.show_card(_console(), catalogue.card(name))


@app.command()
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A preset, to print its file.", show_default=False)
    ] = None,
) -> None:
    """List the presets (models with their recipes), or print the file of one, with the source of every value."""
    from raptr.cli import show_lists
    from raptr.config import catalogue
    from raptr.config.load import presets as names

    if name is None:
        show_lists.show_presets(_console(), [catalogue.preset_entry(name) for name in names()])
    else:
        print(catalogue.preset_text(name), end="")


@app.command()
def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A preset, a run's YAML file or folder, a folder with a config.json, "
            "or a name on the Hugging Face Hub.",
        ),
    ],
    length: Annotated[
        int | None, typer.Option(help="Tokens per sequence. Default: the run's own, or 512.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Show what raptr sees in a model: its stacks, what is always kept and why, FLOPs by part; nothing is run.

    No weights are read. A model that cannot be trained by parts ends with exit code 2 and the reason.
    """
    with _loading():
        from raptr.cli import show
        from raptr.train.inspect_name import inspect_name

        found = inspect_name(model, length)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        show.show_inspection(_console(), found)


@app.command()
def data(
    arguments: Arguments = None,
    cache: Cache = None,
    strict: Strict = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that tokenize. Default: one for each core.", show_default=False),
    ] = None,
) -> None:
    """Prepare a config's data (text to tokens on disk) and describe it.

    The same command goes on where it was interrupted, and ends with the same tokens.
    """
    from raptr.cli import show
    from raptr.data.progress import say_preparing
    from raptr.train.task import prepare_data

    config = _load(arguments, strict=strict)
    say_preparing(_console(stderr=True), config.data)
    with interruptible("the same command goes on where it was"):
        store = prepare_data(config, cache_folder(cache), workers)
    show.show_facts(_console(), store.facts(config.data.sequence_length))


@app.command()
def train(
    arguments: Arguments = None,
    output: Output = None,
    cache: Cache = None,
    max_minutes: MaxMinutes = None,
    allow_changes: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on although this differs from when the run was begun: training.learning_rate, data, torch, ... "
            "An error names what differs.",
            metavar="KEY",
            show_default=False,
        ),
    ] = None,
    strict: Strict = False,
) -> None:
    """Train a config's model with its method, and write a report.

    A run that was stopped goes on from its newest checkpoint when the command is given again. SIGTERM and Ctrl-C
    end the step, save, and end with exit code 75; a second one ends at once. On several GPUs:
    torchrun --nproc_per_node 8 -m raptr train CONFIG, with training.fsdp=true to shard the model.
    """
    with _loading():
        from raptr.cli import show
        from raptr.data.progress import say_preparing
        from raptr.rundir.paths import MODEL
        from raptr.train.engine import train as run
        from raptr.train.ranks import is_main, part
        from raptr.train.stop_request import Stop
        from raptr.train.task import prepare_task

    stop = Stop(max_minutes)
    config = _load(arguments, strict=strict)
    folder = output or Path("runs") / config.name
    console = _console(stderr=True)
    if is_main():
        say_preparing(console, config.data)
    with interruptible("the same command goes on from the newest checkpoint"):
        result = run(
            prepare_task(config, cache_folder(cache)),
            folder,
            console=console,
            command=_command(),
            stop=stop,
            allowed=allow_changes or (),
        )
    part()
    if not is_main():
        return
    show.show_result(_console(), result)
    _console().print(f"model: {folder / MODEL}", highlight=False, soft_wrap=True)
    _write_report(folder)


@app.command()
def compare(
    arguments: Arguments = None,
    methods: Annotated[
        str, typer.Option(help="Methods, or entries of the config's `methods`; or 'all'.")
    ] = "full,raptr",
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    budget: Annotated[BudgetChoice, typer.Option(help="What is held equal.")] = BudgetChoice.flops,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Tune every method: training.learning_rate=1e-3,2e-3. Chosen on validation text that is not reported.",
            show_default=False,
        ),
    ] = None,
    tuning_seeds: Annotated[int, typer.Option(help="Runs of each value of a sweep.")] = 1,
    only: Annotated[
        str,
        typer.Option(
            help="Train these runs only, e.g. raptr-seed2, or 'sweep': several machines can share a folder.",
            show_default=False,
        ),
    ] = "",
    workers: Workers = 1,
    output: Output = None,
    cache: Cache = None,
    max_minutes: MaxMinutes = None,
    strict: Strict = False,
) -> None:
    """Train several methods with several seeds under one budget, and write a report.

    The same command again goes on where it was: finished runs are kept, a stopped one goes on from its checkpoint.
    """
    with _loading():
        from raptr.cli import show
        from raptr.compare import compare as run
        from raptr.compare import parse_sweep
        from raptr.rundir.paths import RUN_INFO
        from raptr.train.stop_request import Stop

    stop = Stop(max_minutes)
    config = _load(arguments, strict=strict)
    folder = output or Path("runs") / config.name
    with interruptible("the same command goes on where it was"):
        summary = run(
            config,
            methods=names_in(methods),
            seeds=seeds,
            budget=budget.value,
            folder=folder,
            cache=cache_folder(cache),
            console=_console(stderr=True),
            command=_command(),
            only=names_in(only),
            grid=parse_sweep(sweep or []),
            tuning_seeds=tuning_seeds,
            stop=stop,
            workers=workers,
        )
    if summary is None:
        _console().print("Other runs of the comparison are not finished; its summary comes with the last one.")
    else:
        show.show_summary(_console(), summary)
    if any(folder.glob(f"*/{RUN_INFO}")):  # not while only a sweep's trials are there
        _write_report(folder)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of runs or comparisons.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The folder to write to. Default: the folder itself; for several, runs/report.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a folder's report and summary again from its runs' files; several folders make one page."""
    _write_report(*folders, output=output)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        import raptr

        print(f"raptr {raptr.__version__}")
        raise typer.Exit


def main() -> None:
    """The `raptr` command."""
    with ended():
        app()


def _load(arguments: list[str] | None, *, strict: bool = False) -> Any:
    from raptr.config import load

    given = list(arguments or [])
    source = given.pop(0) if given and "=" not in given[0] else "demo"
    return load(source, [*given, *(["data.strict=true"] if strict else [])])


def _write_report(*folders: Path, output: Path | None = None) -> None:
    from raptr.report import write_report

    with _console(stderr=True).status("drawing the report ..."):
        path = write_report(*folders, output=output)
    _console().print(f"report: {path}", highlight=False, soft_wrap=True)


def _command() -> str:
    return shlex.join(["raptr", *sys.argv[1:]])


def _console(*, stderr: bool = False) -> Console:
    """For what is shown: of several processes of torchrun the first one speaks."""
    quiet = os.environ.get("RANK", "0") != "0"
    console = Console(stderr=stderr, quiet=quiet)
    return console if console.is_terminal else Console(stderr=stderr, quiet=quiet, width=140)


@contextmanager
def _loading() -> Iterator[None]:
    """Say that something happens while imports take their seconds, and keep transformers quiet."""
    with _console(stderr=True).status("loading PyTorch and transformers ..."):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        yield
