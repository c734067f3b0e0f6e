"""Texts -> tokens, in several processes and in order.

Processes instead of the tokenizers library's threads: those share a call's texts out by document, so that a few
long ones (books) keep one core busy while the others wait, and making arrays of what they found keeps to one core. A
process is given its texts through a pipe and knows nothing else, so what it gives does not depend on how many there
are. It ends when its pipe is closed, and so with the process that started it, however that ends.

A ``concurrent.futures.ProcessPoolExecutor`` does not do that: its workers hold both ends of their queue, so that those
of a killed parent wait forever (tried with spawn and forkserver, Python 3.11). It also reports a dead worker without
its exit code, and runs the user's main module again in every worker.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from raptr.data.tokens.tokenizer import Encode, parallel_tokenizers
from raptr.errors import RaptrError

EACH = 8_000_000
"""Bytes of text that are worth starting one more process."""

_SERVE = "import sys; sys.path[:] = {path!r}; from raptr.data.tokens.encode_pool import serve; serve()"


@dataclass(frozen=True)
class Texts:
    """Texts that are encoded together: ``ends`` says after which of them a document ends.

    ``inside`` says whether the first of them goes on with a document.
    """

    texts: list[str]
    ends: list[bool]
    inside: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Failed:
    """Answer of a process that could not encode its texts."""

    reason: str


@dataclass(frozen=True)
class Recipe:
    """How texts become tokens: the encoder, the token that ends a document, how a token is stored.

    ``begin`` is the token before each document, if there is one.
    """

    encode: Encode
    end: int
    dtype: str
    begin: int | None = None

    def __call__(self, given: Texts) -> npt.NDArray[Any]:
        """The tokens of all texts, one after the other."""
        rows = self.encode(given.texts)
        first = (not given.inside, *given.ends)[: len(rows)]
        begins = [self.begin is not None and begins_here for begins_here in first]
        found = np.empty(sum(map(len, rows)) + sum(given.ends) + sum(begins), dtype=self.dtype)
        place = 0
        for row, begins_here, ends in zip(rows, begins, given.ends, strict=True):
            if begins_here:
                found[place] = self.begin
                place += 1
            found[place : place + len(row)] = row
            place += len(row)
            if ends:
                found[place] = self.end
                place += 1
        return found


def processes(size: int, workers: int | None) -> int:
    """How many processes encode so many bytes: as many as there are cores or are asked for, if they are worth it."""
    return max(1, min(cores() if workers is None else workers, size // EACH))


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encoded(jobs: Iterable[Texts], recipe: Recipe, count: int) -> Iterator[npt.NDArray[Any]]:
    """The tokens of each of the jobs, in their order.

    Args:
        jobs: read a few ahead of what is given.
        recipe: what is done with each.
        count: processes; one is this one itself, with the tokenizers library's own threads.

    Raises:
        RaptrError: a process ended before its work.
    """
    if count == 1:
        for job in jobs:
            with parallel_tokenizers():
                yield recipe(job)
        return
    started: list[subprocess.Popen[bytes]] = []
    free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    pool = ThreadPoolExecutor(count)  # a thread waits for each process

    def work(job: Texts) -> npt.NDArray[Any]:
        process = free.get()
        try:
            return _asked(process, job)
        finally:  # also one that ended: who waits for it is told, too
            free.put(process)

    try:
        for _ in range(count):
            started.append(_start(recipe))
            free.put(started[-1])
        waiting: deque[Future[npt.NDArray[Any]]] = deque()
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > count + 2:  # so that none is idle while this one reads and writes
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.kill()
        for process in started:
            process.wait()
        pool.shutdown()
        for process in started:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close(pipe)


def serve() -> None:
    """What a process does: it reads a recipe, then texts, and writes their tokens, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no answer
    try:
        recipe: Recipe = pickle.load(sys.stdin.buffer)
        while True:
            job = pickle.load(sys.stdin.buffer)
            try:
                answer: Any = recipe(job)
            except Exception as error:
                answer = Failed(f"{type(error).__name__}: {error}")
            pickle.dump(answer, answers)
            answers.flush()
    except (EOFError, BrokenPipeError):
        return


def _start(recipe: Recipe) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    _send(process, recipe)
    return process


def _send(process: "subprocess.Popen[bytes]", value: Any) -> None:
    assert process.stdin is not None
    try:
        pickle.dump(value, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    except BrokenPipeError as error:
        raise _ended(process) from error


def _asked(process: "subprocess.Popen[bytes]", job: Texts) -> npt.NDArray[Any]:
    _send(process, job)
    assert process.stdout is not None
    try:
        found = pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise _ended(process) from error
    if isinstance(found, Failed):
        raise RaptrError(f"the tokenizer failed in a process of its own: {found.reason}")
    return found  # type: ignore[no-any-return]


def _ended(process: "subprocess.Popen[bytes]") -> RaptrError:
    return RaptrError(
        f"a process that tokenizes ended by itself (exit code {process.wait()}), most likely for want of memory; "
        "repeat the command, with fewer --workers: what was finished is kept."
    )


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:  # what was still to be written has no reader
        return
