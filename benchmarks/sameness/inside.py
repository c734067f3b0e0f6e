"""Run raptr's commands in the environment of a checkout.

    python inside.py SOURCE                     # serve: one JSON object a line on stdin, one on stdout
    python inside.py SOURCE train CONFIG ...    # one command, as a rank of torchrun

SOURCE is the folder that raptr must be imported from; from anywhere else, nothing is run. The server imports the
libraries once and runs each command in a process of its own, forked from it, as `python -m raptr` would. vl-convert
does nothing, because it would take most of the time: reports have no chart library, and their PNG files are empty.

A request has `cwd` and `log`, and one of `arguments` (of `raptr`; with `kill_at`, the process gets SIGKILL as soon as
that path exists) and `summarise` (a folder of comparisons, with `output`). The answer is {"code": exit code}.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "accelerate",
    "transformers.trainer",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
    "datasets",
    "pyarrow.parquet",
    "altair",
    "vl_convert",
    "jinja2",
    "scipy.stats",
    "pydantic",
    "typer",
    "rich.progress",
    "rich.live",
)
"""Imported once, before the processes are forked; none of them is raptr."""

LIMIT = 900
"""Seconds after which a command is ended."""


def serve(source: Path) -> None:
    """Answer requests until stdin ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            os._exit(run(source, job))
        if job.get("kill_at"):
            kill_at(process, Path(job["cwd"]) / job["kill_at"])
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"code": code}), flush=True)


def kill_at(process: int, path: Path) -> None:
    """Send SIGKILL to a child as soon as a path exists; a child that has ended is left as it is."""
    while not path.exists():
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)


def run(source: Path, job: dict[str, Any]) -> int:
    """Run a request in this process, and return the exit code."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["cwd"])
    signal.alarm(LIMIT)
    code = 0
    try:
        if "summarise" in job:
            summarise(source, Path(job["summarise"]), Path(job["output"]))
        else:
            command(source, job["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def check(source: Path) -> None:
    """End this process if raptr is not imported from ``source``."""
    import raptr

    found = Path(raptr.__file__).resolve().parents[1]
    if found != source.resolve():
        raise SystemExit(f"raptr was imported from {found}, not from {source}")


def command(source: Path, arguments: list[str]) -> None:
    """Run a command of raptr in this process."""
    check(source)
    import vl_convert

    vl_convert.vegalite_to_png = lambda *args, **settings: b""
    vl_convert.javascript_bundle = lambda *args, **settings: ""
    sys.argv = ["raptr", *arguments]
    runpy.run_module("raptr", run_name="__main__", alter_sys=True)


def summarise(source: Path, folder: Path, output: Path) -> None:
    """Write the summary of each comparison in a folder, or why there is none."""
    check(source)
    from raptr.errors import RaptrError
    from raptr.results import summarise

    for comparison in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            content: Any = summarise(comparison)
        except RaptrError as error:
            content = {"rejected": str(error)}
        (output / f"{comparison.name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        command(Path(sys.argv[1]), sys.argv[2:])
    else:
        serve(Path(sys.argv[1]))
