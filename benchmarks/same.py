"""Check that this checkout gives the same results as another revision, bit for bit: the proof of a refactoring.

    python benchmarks/same.py main                             # all cases, some minutes on two cores
    python benchmarks/same.py v0.1.0 --only summaries killed   # some of them
    python benchmarks/same.py --list                           # the cases
    python benchmarks/same.py HEAD~3 --keep /tmp/same          # keep what was written, and the logs

BASE, any revision of git, is checked out into a worktree, which is removed at the end. Both checkouts (this one with
its uncommitted changes) run the same commands at the same time, each in an environment and in folders of its own, on
the CPU, with one thread and fixed seeds. Both use the dependencies of the Python that runs this script.

Compared are all files that a command leaves: each field of each line of metrics.jsonl except the clock's, weights and
optimizer state bit by bit, config.yaml, run.json, result.json without times, and what else is in a run folder; token
stores with their content hash; summary.json of every stored comparison, and some of their reports.
`sameness/differences.py` lists what is ignored, which new keys are allowed, and which faults were mended on purpose,
each with its reason.

Exit code 0 if all cases are identical, 1 if any differs or fails, 2 if a command line is wrong.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from sameness.cases import Case, cases
from sameness.checkout import Checkout, Failed, described, worktree
from sameness.differences import compare_folders, sort_out
from sameness.sources import write_sources

ROOT = Path(__file__).parents[1]

SHOWN = 5
"""Differences of a case that are printed."""


def check(case: Case, base: Checkout, new: Checkout) -> bool:
    """Run a case, print what came of it, and return whether the checkouts agree."""
    start = time.monotonic()
    try:
        pair = case.run(base, new)
    except Failed as error:
        print(f"{case.name:28}failed: {error}", flush=True)
        return False
    compared = sum(path.is_file() for path in pair[0].rglob("*"))
    if not compared:
        print(f"{case.name:28}failed: nothing was written", flush=True)
        return False
    unwanted, known = sort_out(case.name, compare_folders(*pair))
    seconds = time.monotonic() - start
    if unwanted:
        print(f"{case.name:28}DIFFERENT: {len(unwanted)} differences, BASE -> this checkout")
        for difference in unwanted[:SHOWN]:
            print(f"    {difference}")
        if len(unwanted) > SHOWN:
            print(f"    and {len(unwanted) - SHOWN} more")
    else:
        print(f"{case.name:28}identical ({compared} files, {seconds:.0f} s)")
    for entry, count in known.items():
        print(f"    known, {count} times: {entry.place} ({entry.reason})")
    sys.stdout.flush()
    return not unwanted


def chosen(names: list[str] | None) -> list[Case]:
    """Return the cases of these names, or all.

    Raises:
        SystemExit: there is no such case.
    """
    found = {case.name: case for case in cases()}
    unknown = [name for name in names or () if name not in found]
    if unknown:
        print(f"no case {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        raise SystemExit(2)
    return [found[name] for name in names or found]


def run(revision: str, selected: list[Case], scratch: Path) -> int:
    """Run cases in a scratch folder, and return the exit code."""
    start = time.monotonic()
    write_sources(scratch / "sources")
    with ExitStack() as stack:
        tree = stack.enter_context(worktree(ROOT, revision, scratch / "base" / "checkout"))
        print(f"BASE           {described(tree)}\nthis checkout  {described(ROOT)}\n", flush=True)
        pair = []
        for name, root in (("base", tree), ("new", ROOT)):
            pair.append(Checkout(name, root, scratch / name))
            stack.callback(pair[-1].close)
        different = [case.name for case in selected if not check(case, *pair)]
    print(f"\n{time.monotonic() - start:.0f} s")
    if different:
        print(f"different: {', '.join(different)} ({len(different)} of {len(selected)} cases)")
        return 1
    print(f"identical: {len(selected)} cases")
    return 0


def main() -> int:
    """Compare, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", metavar="BASE", help="the revision to compare with")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases to run")
    parser.add_argument("--list", action="store_true", help="list the cases and run none")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for what is written, which stays")
    args = parser.parse_args()
    selected = chosen(args.only)
    if args.list:
        for case in selected:
            print(f"{case.name:28}{case.about}")
        return 0
    if args.base is None:
        parser.error("give BASE, a revision of git")
    if args.keep is not None and args.keep.exists():
        parser.error(f"{args.keep} exists; give a new folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # which removes the worktree, as Ctrl-C does
    scratch = Path(tempfile.mkdtemp(prefix="same-")) if args.keep is None else args.keep.resolve()
    try:
        return run(args.base, selected, scratch)
    finally:
        if args.keep is None:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
