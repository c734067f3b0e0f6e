"""Files as disks, downloads and other programs leave them: a number says which file, and what happened to it."""

import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
from pyarrow import parquet

WORDS = ("low", "lower", "newest", "wide", "café", "Straße", "日本", "🦖", "def f(x):", "\n\n", "0.5", "<mask>")


def texts(chance: random.Random, count: int = 60) -> list[str]:
    """Some documents."""
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 30))) + f" {i}" for i in range(count)]


def _txt(found: list[str]) -> bytes:
    return "\n\n".join(found).encode()


def _jsonl(found: list[str]) -> bytes:
    return b"".join(json.dumps({"id": i, "text": text}).encode() + b"\n" for i, text in enumerate(found))


def _zst(content: bytes) -> bytes:
    packed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return packed


def _table(found: list[str]) -> pyarrow.Table:
    return pyarrow.table({"id": range(len(found)), "text": found, "nested": [{"text": text} for text in found]})


def _parquet(found: list[str]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(_table(found), sink, row_group_size=20)
    return bytes(sink.getvalue())


def _arrow(new: Callable[..., pyarrow.ipc.RecordBatchStreamWriter]) -> Callable[[list[str]], bytes]:
    def write(found: list[str]) -> bytes:
        sink, table = pyarrow.BufferOutputStream(), _table(found)
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
        return bytes(sink.getvalue())

    return write


KINDS: dict[str, Callable[[list[str]], bytes]] = {
    "a.txt": _txt,
    "a.jsonl": _jsonl,
    "a.txt.gz": lambda found: gzip.compress(_txt(found), mtime=0),
    "a.jsonl.gz": lambda found: gzip.compress(_jsonl(found), mtime=0),
    "a.jsonl.xz": lambda found: lzma.compress(_jsonl(found)),
    "a.txt.zst": lambda found: _zst(_txt(found)),
    "a.jsonl.zst": lambda found: _zst(_jsonl(found)),
    "a.parquet": _parquet,
    "a.arrow": _arrow(pyarrow.ipc.new_file),
    "stream.arrow": _arrow(pyarrow.ipc.new_stream),
}
"""A whole file of each kind that raptr reads, from its documents."""

_DIGITS = "9" * 5000
LINES = (
    *(
        b"[1]",
        b"5",
        b"null",
        b'"text"',
        b"{}",
        b'{"text": null}',
        b'{"text": 5}',
        b'{"text": []}',
        b'{"text": {"text": 1}}',
    ),
    *(
        b'{"text": NaN}',
        b"NaN",
        b"-Infinity",
        b'{"text": "a", "text": "b"}',
        b'{"TEXT": "a"}',
        b'{"": "a"}',
        b"{",
        b"}",
    ),
    *(f'{{"id": {_DIGITS}, "text": "a"}}'.encode(), _DIGITS.encode(), f'{{"text": {_DIGITS}}}'.encode(), b"1e999"),
    *(
        b"[" * 3000,
        b"[" * 200_000,
        b'{"text":' * 3000,
        b'{"text": "\\ud800"}',
        b'{"text": "\\u0000"}',
        b'{"text": "\xff"}',
    ),
    *(b'{"text": "' + b"x" * 300_000 + b'"}', b'{"text": ""}', b'{"text": " "}', b"\0" * 50, b"\xef\xbb\xbf{}", b"\r"),
    *(
        f'{{"{"k" * 30_000}": 1}}'.encode(),
        b'{"text": "\x01"}',
        b"'text'",
        b"{'text': 'a'}",
        b'{"text": "a"},',
        b"\xff\xfe",
    ),
)
"""Lines of a .jsonl file that are no records, or odd ones; anywhere else they are rubbish."""


def truncated(content: bytes, chance: random.Random) -> bytes:
    """Cut off, anywhere or near the end."""
    return content[: chance.choice((chance.randrange(len(content) + 1), max(0, len(content) - chance.randint(1, 30))))]


def flipped(content: bytes, chance: random.Random) -> bytes:
    """With a few bits turned."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, chance: random.Random) -> bytes:
    """With a run of bytes that are NUL, 255 or anything."""
    place, size = chance.randrange(len(content) + 1), chance.choice((1, 4, 16, 512))
    piece = chance.choice((b"\0" * size, b"\xff" * size, chance.randbytes(size)))
    return content[:place] + piece + content[place + size :]


def inserted(content: bytes, chance: random.Random) -> bytes:
    """With a line of rubbish, between two others where there are any."""
    lines = content.split(b"\n")
    for _ in range(chance.choice((1, 1, 9))):
        lines.insert(chance.randint(0, len(lines)), chance.choice(LINES))
    return b"\n".join(lines)


def replaced(content: bytes, chance: random.Random) -> bytes:
    """Another file altogether."""
    kinds = [make(["one text of another file", "and one more"]) for make in KINDS.values()]
    return chance.choice((b"", b"\n", b"\0" * 4096, b"<!DOCTYPE html>", content[::-1], chance.choice(LINES), *kinds))


def shuffled(content: bytes, chance: random.Random) -> bytes:
    """With a block that is missing, twice there, or at another place."""
    one, two = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    block = content[one:two]
    return chance.choice((content[:one] + content[two:], content + block, block + content[:one] + content[two:]))


DAMAGES = (truncated, flipped, overwritten, inserted, replaced, shuffled)


def text_file(number: int, folder: Path) -> tuple[Path, str]:
    """Write the damaged text file of a number: its path, and what happened to it."""
    chance = random.Random(f"text {number}")
    kind = list(KINDS)[number % len(KINDS)]
    damage = chance.choice(DAMAGES)
    path = folder / kind
    path.write_bytes(damage(KINDS[kind](texts(chance)), chance))
    return path, f"file {number}: {kind} {damage.__name__}"


def _json_damage(content: bytes, chance: random.Random) -> bytes:
    """JSON in which one value is another."""
    data = json.loads(content.split(b"\n")[0] if content.count(b"\n{") else content)
    rest = content.split(b"\n", 1)[1] if content.count(b"\n{") else b""
    places = list(_places(data))
    if places:
        holder, key = chance.choice(places)
        if chance.random() < 0.3 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = chance.choice(VALUES)
    return json.dumps(data).encode() + b"\n" + rest


VALUES = (
    *(None, True, 0, -1, 1.5, 10**400, -(10**400), float("nan"), float("inf"), 2**63, "", "x", "x" * 5000, [], [[]]),
    *({}, {"a": {}}, [1, "a", None], [10**400], "../../x", "\0", "\ud800"),
)


def _places(data: object) -> list[tuple[dict[str, object] | list[object], object]]:
    """Every key and index of nested data, with what holds it."""
    if isinstance(data, dict | list):
        items = list(data.items()) if isinstance(data, dict) else list(enumerate(data))
        return [(data, key) for key, _ in items] + [place for _, value in items for place in _places(value)]
    return []


def one_of(folder: Path, number: int) -> str:
    """Damage one file of a folder that was whole: what happened to which."""
    chance = random.Random(f"folder {number}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[number % len(files)]
    content = path.read_bytes()
    damages = [*DAMAGES]
    if path.suffix in (".json", ".jsonl") and content:
        damages += [_json_damage] * 6
    damage = chance.choice(damages)
    if chance.random() < 0.05:
        path.unlink()
        return f"folder {number}: {path.name} missing"
    path.write_bytes(damage(content, chance))
    return f"folder {number}: {path.name} {damage.__name__}"
