"""A checkout of raptr with an environment of its own, and how its commands are run."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).with_name("inside.py")

TAIL = 15
"""Lines of a log that are shown when a command fails."""


class Failed(Exception):
    """A command did not end as it should have."""


class Checkout:
    """A checkout whose commands run in its own environment, with one thread, and write below a folder of its own.

    The environment is a venv in which raptr is the checkout's `src`; the dependencies are those of the Python that
    runs this script, the same for all checkouts.

    Args:
        name: "base" or "new".
        root: the checkout.
        home: a folder for the environment, and for what the commands write.
    """

    def __init__(self, name: str, root: Path, home: Path) -> None:
        self.name, self.source, self.home = name, root / "src", home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        (home / "logs").mkdir()
        self._python = _environment(home / "venv", self.source)
        self._server = subprocess.Popen(
            [self._python, str(INSIDE), str(self.source)],
            env=_variables(),
            cwd=self.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def raptr(self, case: str, *arguments: str, kill_at: str | None = None) -> None:
        """Run a command of raptr in `work`.

        Args:
            case: name of the case, and of the log.
            arguments: of the command.
            kill_at: a path; the process gets SIGKILL as soon as it exists.

        Raises:
            Failed: the exit code is not 0, or the process was not killed.
        """
        request = {"arguments": arguments, "kill_at": kill_at}
        self._request(case, request, expected=0 if kill_at is None else -9)

    def torchrun(self, case: str, processes: int, *arguments: str) -> None:
        """Run a command of raptr in several processes on this machine.

        Raises:
            Failed: the exit code is not 0.
        """
        launcher = [self._python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        with self._log(case).open("ab") as log:
            done = subprocess.run(
                [*launcher, str(INSIDE), str(self.source), *arguments],
                env=_variables() | {"GLOO_SOCKET_IFNAME": "lo"},
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._check(case, done.returncode, 0)

    def summarise(self, case: str, folder: Path, output: Path) -> None:
        """Write the summaries of the comparisons in a folder.

        Raises:
            Failed: the exit code is not 0.
        """
        self._request(case, {"summarise": str(folder), "output": str(output)}, expected=0)

    def _request(self, case: str, request: dict[str, Any], expected: int) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request |= {"cwd": str(self.work), "log": str(self._log(case))}
        try:
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name}: the environment does not work") from None
        answer: dict[str, Any] = {"ready": True}
        while "ready" in answer:
            line = self._server.stdout.readline()
            if not line:
                raise Failed(f"{self.name}: the environment does not work")
            answer = json.loads(line)
        self._check(case, answer["code"], expected)

    def _check(self, case: str, code: int, expected: int) -> None:
        if code != expected:
            log = self._log(case)
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            what = f"{self.name}: exit code {code} instead of {expected}"
            raise Failed("\n".join([what, *(f"    {line}" for line in lines[-TAIL:])]))

    def _log(self, case: str) -> Path:
        return self.home / "logs" / f"{case}.txt"


@contextmanager
def worktree(root: Path, revision: str, place: Path) -> Iterator[Path]:
    """Check out a revision of a repository into a folder, which is removed at the end.

    Raises:
        SystemExit: there is no such revision.
    """
    added = _git(root, "worktree", "add", "--detach", "--force", str(place), revision)
    if added.returncode:
        raise SystemExit(f"{revision!r} cannot be checked out: {added.stderr.strip()}")
    try:
        yield place
    finally:
        _git(root, "worktree", "remove", "--force", str(place))


def described(root: Path) -> str:
    """Return the commit of a checkout, and whether it was changed since."""
    changed = _git(root, "status", "--porcelain", "--untracked-files=no").stdout.strip()
    return _git(root, "log", "-1", "--format=%h %s").stdout.strip() + (" (with changes)" if changed else "")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)


def _environment(place: Path, source: Path) -> str:
    """Make a venv, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "raptr.pth").write_text("".join(f"{path}\n" for path in (source, *shared)), encoding="utf-8")
    return str(place / "bin" / "python")


def _variables(of: Sequence[str] = ("PYTHON", "RAPTR_", "TORCH", "HF_")) -> dict[str, str]:
    """Return the environment variables of a command: this process's, without those that could change its result."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(tuple(of))}
    return kept | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
