"""The examples of docs/data.md: all are valid, and all that need no network prepare."""

import re
from pathlib import Path

import pyarrow
import pytest
import yaml
from pyarrow import parquet

from raptr.config import parse
from raptr.data import prepare

GUIDE = Path(__file__).parents[2] / "docs" / "data.md"
EXAMPLES = {
    found["name"]: found
    for found in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL))
}


@pytest.fixture
def texts(tmp_path, monkeypatch, write_jsonl):
    """What the examples read, in the working folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "text": f"Text {i} of many words, words and words.",
            "language": ("en", "de")[i % 4 == 0],
            "score": i % 10 / 10,
        }
        for i in range(900)
    ]
    for folder in ("texts", "wiki"):
        Path(folder).mkdir()
    write_jsonl(Path("texts/a.jsonl"), rows)
    write_jsonl(Path("held-out.jsonl"), [{"text": f"Held out {i}: other words."} for i in range(40)])
    nested = [{**row, "body": {"text": row["text"].upper()}} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(nested), "wiki/0.parquet")
    write_jsonl(Path("valid.jsonl"), [{**row, "body": {"text": "Valid: " + row["text"]}} for row in rows[:99]])
    with pyarrow.output_stream("wiki-valid.jsonl.zst", compression="zstd") as file:
        file.write(Path("valid.jsonl").read_bytes())
    table = datasets.Dataset.from_list(rows)
    table.to_csv("table.csv")
    datasets.DatasetDict({"train": table.select(range(800)), "test": table.select(range(800, 900))}).save_to_disk(
        "saved"
    )


def test_the_guide_has_an_example_of_every_kind():
    assert list(EXAMPLES) == ["short", "mixed", "builders", "hub"]
    keys = {
        key
        for name in ("mixed", "builders", "hub")
        for one in EXAMPLES[name]["data"]["sources"].values()
        for key in one
    }
    assert {"path", "dataset", "files", "filter", "streaming", "revision", "validation_split"} <= keys
    hub = parse(EXAMPLES["hub"], "docs/data.md").data.named_sources()["wikitext"]
    assert (hub.dataset, hub.streaming) == ("Salesforce/wikitext", True)


@pytest.mark.parametrize("name", ["short", "mixed", "builders"])
def test_its_examples_prepare(texts, tmp_path, name):
    data = parse(EXAMPLES[name], "docs/data.md").data
    made = prepare(data, tmp_path / "cache")
    assert list(made.stores) == (list(data.sources) or ["data"])
    assert made.description["vocabulary"] == 300
    assert made.facts(data.sequence_length)["training sequences"] > 500
    for name, one in made.stores.items():
        assert one.description["skipped"] == {}
        assert len(one.validation) > 100, name
    if name == "mixed":
        assert made.stores["wiki"].description["filtered"] > 400
        assert made.training(16).shares == pytest.approx((0.7, 0.3), abs=1e-4)
