"""What text can be read can be trained on: a run from each kind of source to its finished model.

Real English text is used where there is some: see tests/helpers/real_text.py.
"""

import itertools
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.real_text import SHARDS, WIKI, needs
from helpers.runs import metrics, run, tiny
from raptr.errors import RaptrError
from raptr.train.task import prepare_task

real = needs(SHARDS)


def texts() -> list[dict[str, str]]:
    """Documents of the size of paragraphs, all different."""
    words = random.Random(0).choices(["all", "these", "words", "in", "some", "order", "drawn", "once"], k=30 * 300)
    return [{"text": f"Paragraph {i}: {' '.join(words[30 * i : 30 * (i + 1)])}."} for i in range(300)]


def parquet_folder(root: Path) -> dict[str, Any]:
    import pyarrow
    from pyarrow import parquet

    (root / "tables" / "more").mkdir(parents=True)
    for part, name in enumerate(("a.parquet", "more/b.parquet")):
        parquet.write_table(pyarrow.Table.from_pylist(texts()[part::2]), root / "tables" / name)
    return {"source": str(root / "tables")}


def packed_lines(root: Path) -> dict[str, Any]:
    import json

    import pyarrow

    content = "".join(json.dumps(row) + "\n" for row in texts()).encode()
    with pyarrow.output_stream(str(root / "lines.jsonl.zst"), compression="zstd") as file:
        file.write(content)
    return {"source": str(root / "lines.jsonl.zst")}


def builder(root: Path) -> dict[str, Any]:
    (root / "table.csv").write_text("text\n" + "".join(f'"{row["text"]}"\n' for row in texts()))
    return {"sources": {"table": {"dataset": "csv", "files": [str(root / "table.csv")]}}}


def streamed(root: Path) -> dict[str, Any]:
    source = parquet_folder(root)["source"]
    return {"sources": {"stream": {"dataset": "parquet", "files": f"{source}/**/*.parquet", "streaming": True}}}


def saved(root: Path) -> dict[str, Any]:
    import datasets

    rows = datasets.Dataset.from_list(texts())
    parts = {"train": rows.select(range(250)), "test": rows.select(range(250, 300))}
    datasets.DatasetDict(parts).save_to_disk(str(root / "saved"))
    return {"sources": {"saved": {"dataset": str(root / "saved"), "validation_split": "test"}}}


def wikipedia(root: Path) -> dict[str, Any]:
    validation = str(WIKI)
    return {"source": str(SHARDS / "wiki.train-0*.jsonl.xz"), "max_bytes": 200_000, "validation": validation}


def wikipedia_and_books(root: Path) -> dict[str, Any]:
    kinds = {
        name: {"path": str(SHARDS / f"{name}.train-00.jsonl.xz"), "max_bytes": 100_000} for name in ("wiki", "books")
    }
    return {"sources": kinds, "mixture": "wiki:0.7,books:0.3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        parquet_folder,
        packed_lines,
        builder,
        streamed,
        saved,
        pytest.param(wikipedia, marks=real),
        pytest.param(wikipedia_and_books, marks=real),
    ],
)
def test_a_run_is_trained_on_it(source: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    data = {**source(tmp_path), "tokenizer": 300, "sequence_length": 16, "validation_share": 0.2}
    config = tiny(data=data, training__max_steps=20, evaluation__every=5)
    task, result = run(config, tmp_path / "run", tmp_path / "cache")
    losses = [line["eval_loss"] for line in metrics(tmp_path / "run", "eval")]
    assert result["steps"] == 20
    assert losses[-1] < losses[0]
    names = list(config.data.named_sources())
    assert list(task.validation_data()) == (names if config.data.sources else ["validation"])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@real
def test_a_cut_off_shard_is_reported_and_the_rest_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = WIKI.read_bytes()
    for name, content in (("a.jsonl.xz", shard[: len(shard) // 2]), ("b.jsonl.xz", shard)):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / name).write_bytes(content)
    data = {"source": str(tmp_path / "text"), "tokenizer": 300, "sequence_length": 16, "validation_share": 0.2}
    told = prepare_task(tiny(data=data), tmp_path / "cache").store.description
    assert told["skipped"] == {"broken file": 1}
    assert "a.jsonl.xz: the packed file is broken or cut off" in capsys.readouterr().err
    with lzma.open(WIKI, "rt", encoding="utf8") as lines:
        assert told["duplicates"] > 0  # what came before the break, once more in the whole file
        assert sum(told["documents"].values()) == sum(1 for _ in lines)
    with pytest.raises(RaptrError, match="broken or cut off"):
        prepare_task(tiny(data={**data, "strict": True}), tmp_path / "strict")


def test_a_mixture_goes_on_where_it_was(tmp_path: Path) -> None:
    """The samples from any step on are those of a run that was never stopped, whatever is asked before."""
    both = {**builder(tmp_path)["sources"], "lines": {"path": packed_lines(tmp_path)["source"]}}
    data = {"sources": both, "mixture": "table:3,lines:1", "tokenizer": 300, "sequence_length": 16}
    one, other = (prepare_task(tiny(data=data), tmp_path / "cache").training_data(40) for _ in range(2))
    whole = [one[i]["tokens"].tolist() for i in range(160)]
    assert [other[i]["tokens"].tolist() for i in range(100, 160)] == whole[100:]
    assert len({tuple(tokens) for tokens in whole}) > 100  # control: samples differ
    assert all(a != b for a, b in itertools.pairwise(whole))
