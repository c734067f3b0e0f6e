"""builtin:python, the embedded corpus: the Python sources of raptr's own dependencies.

Real text that is on every machine: nothing is downloaded, nothing is shipped. What it holds depends
on the versions installed, so results on it are only comparable where the content hash is the same.
"""

import hashlib
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("torch", "transformers", "numpy", "sympy")
"""What is read beside the standard library, where it is installed."""

_NOT_SOURCES = {"site-packages", "dist-packages", "__pycache__"}


def read_builtin() -> Iterator[tuple[str, bytes]]:
    """The (name, content) of every Python file, in an order that makes any prefix a fair sample.

    Files are sorted by a hash of their name, "package/relative/path.py". Packages are found without
    being imported.

    Returns:
        An iterator that reads one file at a time. Content is as on disk; it need not be UTF-8.

    Example:
        >>> name, content = next(read_builtin())
        >>> name.endswith(".py")
        True
    """
    for name, path in _sorted():
        yield name, path.read_bytes()


@cache
def _sorted() -> list[tuple[str, Path]]:
    """All of them, listed once in a process: there are ten thousand, and they change only if packages do."""
    files = [(name, path) for package, root in _roots().items() for name, path in _files(package, root)]
    return sorted(files, key=lambda file: _place(file[0]))


def _roots() -> dict[str, Path]:
    roots = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            roots[package] = Path(next(iter(spec.submodule_search_locations)))
    return roots


def _files(package: str, root: Path) -> Iterator[tuple[str, Path]]:
    for folder, subfolders, names in os.walk(root):
        # The standard library's folder can hold the installed packages: they are roots of their own.
        subfolders[:] = [name for name in subfolders if name not in _NOT_SOURCES]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            if path.is_file():
                yield f"{package}/{path.relative_to(root).as_posix()}", path


def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf8", "surrogateescape"), digest_size=16).digest()
