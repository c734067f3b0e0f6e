"""Throw generated commands and damaged files at raptr, and list every one that does not end as promised.

    python benchmarks/fuzz.py                                   # 20,000 commands, 5,000 files; exit code 1 if any
    python benchmarks/fuzz.py --commands 500 --files 100 --seed 7

The long form of tests/fuzz, with the same generators, those of tests/helpers/fuzz, and another seed each time, which is
printed: with it the same commands and files are made again. A command ends with success, or with exit code 2 and one
message of sensible length; no traceback, no hang, no input that changed. Whatever does not is printed with the shortest
command that was found.
"""

import argparse
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1] / "tests")  # where helpers.fuzz is
os.environ["HF_HUB_OFFLINE"] = "1"

from hypothesis import HealthCheck, given, seed, settings  # noqa: E402

from helpers.fuzz import commands, files, running  # noqa: E402
from helpers.fuzz.places import lay_out  # noqa: E402

SHARES = {
    "schedule_commands": 0.3,
    "override_commands": 0.4,
    "any_commands": 0.18,
    "config_files": 0.1,
    "model_commands": 0.02,
}
"""Of the commands, by their kind."""

FOLDERS = {"store": 0.08, "tokenizer": 0.08, "run": 0.02, "again": 0.02}
"""Of the files, those that are one of a folder; the others are texts."""


def fuzz_commands(kind: str, count: int, number: int, place: Path) -> str:
    """Run so many commands of a kind: what is wrong with the shortest one found; empty if nothing is."""

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(getattr(commands, kind)())
    def tried(made: Any) -> None:
        running.check(commands.command_of(made, place), place)

    return _wrong(tried)


def fuzz_files(name: str, count: int, number: int) -> list[str]:
    """Read so many damaged files: what is wrong, by file."""
    read = files.read_text_file if name == "texts" else lambda which: files.read_folder(name, which)
    found = []
    for which in range(number, number + count):
        if said := _wrong(lambda which=which: read(which)):  # type: ignore[misc]
            found.append(f"{name} {which}: {said}")
    return found


def main() -> int:
    """Exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=None)
    given_ = parser.parse_args()
    number = secrets.randbelow(10**9) if given_.seed is None else given_.seed
    print(f"--commands {given_.commands} --files {given_.files} --seed {number}", flush=True)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        lay_out(Path(folder))
        for kind, share in SHARES.items():
            count = round(share * given_.commands)
            said = fuzz_commands(kind, count, number, Path(folder)) if count else ""
            found += [f"{kind}: {said}"] if said else []
            print(f"{kind}: {count}, {len(found)} findings so far", flush=True)
        counts = {name: round(share * given_.files) for name, share in FOLDERS.items()}
        if given_.files:
            files.prepare(Path(folder))
        for name, count in {"texts": given_.files - sum(counts.values()), **counts}.items():
            found += fuzz_files(name, count, number)
            print(f"{name}: {count}, {len(found)} findings so far", flush=True)
    print("\n\n".join(found))
    return int(bool(found))


def _wrong(work: Callable[[], Any]) -> str:
    try:
        work()
    except AssertionError as error:
        return str(error)
    except BaseExceptionGroup as error:  # of several failures hypothesis makes a group
        return "\n\n".join(map(str, error.exceptions))
    return ""


if __name__ == "__main__":
    sys.exit(main())
