"""Runs of a comparison, one after the other or side by side: in processes, each with its share of runs and cores."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

import torch
import transformers
from rich.console import Console

from raptr.compare.gpus import showing
from raptr.compare.jobs import Job
from raptr.compare.request import Asked, on_the_clock, planned
from raptr.compare.sweep import Values
from raptr.data.tokens.encode_pool import cores
from raptr.errors import STOPPED, RaptrError, Stopped
from raptr.train.engine import train
from raptr.train.stop_request import Stop


def train_all(
    jobs: Sequence[tuple[int, Job]], folder: Path, *, total: int, command: str, console: Console, stop: Stop
) -> None:
    """Train runs one after the other, each with its number of ``total``."""
    for number, job in jobs:
        title = f"run {number}/{total} {job.name}"
        train(job.task, folder / job.name, console=console, command=command, title=title, stop=stop, keep_diverged=True)


def workers_of(asked: int, gpus: Sequence[str]) -> int:
    """How many runs are trained at a time: as many as asked for, or for 0 one for each GPU, or else for each core.

    Raises:
        RaptrError: less than 0.
    """
    if asked < 0:
        raise RaptrError(f"--workers is {asked}; give 1 or more, or 0 for one run on each GPU, or else on each core.")
    return asked or len(gpus) or cores()


def side_by_side(
    asked: Asked,
    chosen: dict[str, Values],
    names: Sequence[tuple[int, str]],
    workers: int,
    *,
    gpus: Sequence[str],
    total: int,
    command: str,
    stop: Stop,
) -> None:
    """Train runs in several processes at a time: for small models this is faster than all cores for each run.

    Every process is given its share of the runs beforehand, its share of the cores, and one GPU of several. Losses do
    not depend on it but for rounding; the runs' seconds are those of a machine that does other work too. A stop reaches
    every process, as does the end of this one: their runs end a step, save, and go on by the same command.

    Args:
        asked: of the comparison.
        chosen: the values of each method, where it is tuned.
        names: of the runs, with their numbers.
        workers: processes at most.
        gpus: that they use in turn, see `raptr.compare.gpus.gpus_of`.
        total: runs of the whole command.
        command: for the runs' records.
        stop: when to stop early.

    Raises:
        RaptrError: some process failed; the others have trained their share.
        Stopped: it was to stop, and the same call goes on.
    """
    workers = min(workers, len(names))
    threads = max(1, torch.get_num_threads() // workers)
    spawn = multiprocessing.get_context("spawn")  # what torch and CUDA have begun here is not for a fork
    processes = [
        spawn.Process(target=_work, args=(asked, chosen, names[k::workers], total, command, threads))
        for k in range(workers)
    ]
    told = False
    with stop.listening():
        try:
            for k, process in enumerate(processes):
                with showing(gpus, k):
                    process.start()
            while alive := [process for process in processes if process.is_alive()]:
                wait([process.sentinel for process in alive], timeout=0.2)
                if stop.reason and not told:
                    told = True
                    for process in alive:
                        process.terminate()
        finally:  # a second Ctrl-C comes here
            for process in processes:
                if process.is_alive():
                    process.kill()
                    process.join()
    if told:
        raise Stopped(f"stopped {stop.reason}")
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        codes = ", ".join(map(str, failed))
        raise RaptrError(
            f"{len(failed)} of {workers} processes that train side by side failed (exit codes {codes}); what they said "
            "is above. The same command trains what is missing."
        )


def _work(
    asked: Asked,
    chosen: dict[str, Values],
    names: Sequence[tuple[int, str]],
    total: int,
    command: str,
    threads: int,
) -> None:
    """What each process does."""
    os.setsid()  # Ctrl-C is for the process that started this one, which passes it on once
    _end_with_parent()
    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    console = Console(stderr=True, width=140, force_terminal=False)
    try:
        comparison = on_the_clock(planned(asked, Console(quiet=True)), console)
        jobs = {job.name: job for job in (*comparison.trials(), *comparison.runs(chosen))}
        share = [(number, jobs[name]) for number, name in names]
        train_all(share, asked.folder, total=total, command=command, console=console, stop=Stop())
    except Stopped as stopped:
        console.print(str(stopped), highlight=False, markup=False, soft_wrap=True)
        sys.exit(STOPPED)
    except RaptrError as error:
        console.print(f"raptr: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


def _end_with_parent() -> None:
    """Stop in order when the process that started this one ends, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
