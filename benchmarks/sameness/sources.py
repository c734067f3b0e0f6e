"""Small text files of every kind, the same on every call: documents, doubled ones, empty ones, and broken records."""

import json
import random
from pathlib import Path

DOCUMENTS = 60
SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


def write_sources(folder: Path) -> None:
    """Write `txt/`, `jsonl.zst`, `parquet` and `arrow` sources, each of texts of its own."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    (folder / "txt").mkdir()
    for number, text in enumerate(texts(0)):
        (folder / "txt" / f"{number:02}.txt").write_text(text, encoding="utf-8")
    (folder / "txt" / "broken.txt").write_bytes(b"not \xff\xfe UTF-8")
    lines = [json.dumps({"text": text, "number": number}) for number, text in enumerate(texts(1))]
    lines[5:5] = ['{"text": "cut off', '{"other": 1}']
    with pyarrow.output_stream(str(folder / "lines.jsonl.zst"), compression="zstd") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    table = pyarrow.table({"text": texts(2), "number": range(len(texts(2)))})
    parquet.write_table(table, folder / "table.parquet", row_group_size=16)
    table = pyarrow.table({"text": texts(3), "number": range(len(texts(3)))})
    with (
        pyarrow.OSFile(str(folder / "table.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as stream,
    ):
        stream.write_table(table, max_chunksize=16)


def texts(seed: int) -> list[str]:
    """Return documents of made-up words; one of them twice, and an empty one."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(200)]
    often = [1 / (rank + 1) for rank in range(len(words))]
    found = []
    for _ in range(DOCUMENTS):
        sentences = (" ".join(draw.choices(words, often, k=draw.randint(4, 14))) for _ in range(draw.randint(4, 30)))
        found.append("".join(f"{sentence.capitalize()}. " for sentence in sentences) + "é ∑\n")
    return [*found, found[3], ""]
