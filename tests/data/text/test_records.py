"""Which column is the text, and which records are used."""

import datetime

import pyarrow
import pytest
from pyarrow import parquet

from raptr.config.filter_rule import parse_rule
from raptr.data import Omitted
from raptr.data.text.files import read_files
from raptr.data.text.records import Choice, Record
from raptr.errors import RaptrError

ROWS = [
    {"text": "one", "language": "en", "score": 0.7, "meta": {"old": True}},
    {"text": "zwei", "language": "de", "score": 0.9, "meta": {"old": False}},
    {"text": "three", "language": "en", "score": None, "meta": None},
    {"text": "four", "language": None, "score": 0.5, "meta": {"old": False}},
]


def used(choice, rows=ROWS):
    omitted = Omitted()
    records = [Record(f"r:{i}", f"row {i}", row) for i, row in enumerate(rows)]
    return [text.decode() for _, text in choice.documents(records, omitted)], omitted


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["language == en"], ["one", "three"]),
        (["language != en"], ["zwei"]),  # null meets neither
        (["score >= 0.7"], ["one", "zwei"]),
        (["score>0.5", "score<0.9"], ["one"]),
        (["score <= 1"], ["one", "zwei", "four"]),
        (["language == null"], ["four"]),
        (["score != null", 'language != "de"'], ["one"]),
        (["meta.old == false"], ["zwei", "four"]),
        (["text < p"], ["one", "four"]),
    ],
)
def test_rules_choose_records(rules, expected):
    found, omitted = used(Choice(rules=tuple(map(parse_rule, rules))))
    assert found == expected
    assert omitted.filtered == 4 - len(expected)
    assert not omitted.bad


def test_lengths_are_in_characters():
    assert used(Choice(min_chars=4, max_chars=4), [{"text": t} for t in ("ööö", "öööö", "ööööö")])[0] == ["öööö"]


def test_a_rule_that_cannot_be_applied_makes_a_record_bad():
    for rule, kind in (("score == high", "wrong type"), ("age > 3", "no such column"), ("meta > 3", "wrong type")):
        found, omitted = used(Choice(rules=(parse_rule(rule),)))
        assert omitted.bad[kind] >= 3
        assert found == []


def test_dates_compare_as_text():
    rows = [{"text": str(year), "day": datetime.date(year, 1, 2)} for year in (1999, 2020, 2021)]
    assert used(Choice(rules=(parse_rule("day >= 2020-01-02"),)), rows)[0] == ["2020", "2021"]


@pytest.mark.parametrize(
    "text",
    [
        "language",
        "language = en",
        "== en",
        "a ~ b",
        "a == ",
        "a == [1]",
        "a > true",
        "a < null",
        "a >= .nan",
        "",
        "a == {",
    ],
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(RaptrError, match="rule"):
        parse_rule(text)


@pytest.mark.parametrize("ending", ["parquet", "stream.arrow", "file.arrow"])
def test_tables_are_read_by_batches_with_nested_columns(tmp_path, ending):
    rows = [{"id": i, "body": {"text": f"text {i}", "junk": "x" * 100}, "n": i % 3} for i in range(500)]
    table, path = pyarrow.Table.from_pylist(rows), tmp_path / f"some.{ending}"
    if ending == "parquet":
        parquet.write_table(table, path, row_group_size=150)
    else:
        new = pyarrow.ipc.new_stream if ending == "stream.arrow" else pyarrow.ipc.new_file
        with new(str(path), table.schema) as file:
            file.write_table(table, max_chunksize=200)
    omitted = Omitted()
    choice = Choice(text="body.text", rules=(parse_rule("n == 1"),))
    found = list(read_files(str(path), choice, omitted))
    assert found == [(f"{path.name}:{i + 1}", f"text {i}".encode()) for i in range(500) if i % 3 == 1]
    assert (omitted.records, omitted.filtered) == (500, 333)
    assert set(choice.roots(table.column_names)) == {"body", "n"}


def test_a_table_is_not_held_in_memory(tmp_path):
    path = tmp_path / "big.parquet"
    texts = [f"{i} " + "word " * 4000 for i in range(1000)]  # 20 MB, 2 row groups
    table = pyarrow.table({"text": texts, "more": texts})
    parquet.write_table(table, path, row_group_size=500, write_batch_size=20, data_page_size=2**18)
    del texts, table
    before, most = pyarrow.total_allocated_bytes(), 0
    for _ in read_files(str(path), Choice(), Omitted()):
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert 0 < most < 6e6
