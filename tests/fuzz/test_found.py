"""What generated commands and damaged files have found: each case once more, by itself."""

import json
import shutil
import struct
from pathlib import Path

import pyarrow
import pytest

from helpers.fuzz import damage, files, running
from helpers.fuzz.commands import GUARD
from raptr.cli.exit_codes import shortened
from raptr.plan.shape import MOST_LAYERS

DIGITS = "9" * 400

FOUND = [
    (["plan", "--layers", "12", "--steps", DIGITS], "steps is above 1,000,000,000,000,000"),
    (["plan", "--layers", "1000000000"], "more than 100,000 layers"),
    (["plan", "--layers", DIGITS], "more than 100,000 layers"),
    (["plan", "--layers", "1000000000", "--method", "sequence_layer_dropout"], "more than 100,000 layers"),
    (["plan", "--layers", "12", "--schedule", "1" * 5000], "...("),
    (["plan", "--layers", "12", f"--{'y' * 3000}"], "...(3002"),
    (["x" * 5000], "...("),
    (["methods", "a b " * 2000], "characters)"),
    (["plan", "tiny.yaml", "a b " * 2000], "characters)"),
    (["plan", "tiny.yaml", "model.config.num_hidden_layers=1000000000"], "num_hidden_layers is above 100,000"),
    (["plan", "tiny.yaml", "stability.max_skipped=1"], "did you mean 'max_skipped_updates'?"),
    (["plan", "tiny.yaml", "methods.raptr.transition_lr.scal=1"], "did you mean 'scale'?"),
    (["train", "tiny.yaml", "training.max_steps=null", "training.num_train_epochs=.inf", *GUARD], "max_steps"),
]


@pytest.mark.parametrize(("arguments", "said"), FOUND, ids=[" ".join(given)[:60] for given, _ in FOUND])
def test_it_is_refused_in_one_message(arguments: list[str], said: str, place: Path) -> None:
    ending = running.check(arguments, place)
    assert ending.code == 2
    assert said in " ".join(ending.err.replace("│", " ").split())
    assert len(ending.err) < 3000


@pytest.mark.parametrize("weights", [f"a:1{'0' * 400},b:1", "a:1e308,b:1e308", "a:1e400,b:1"])
def test_weights_of_a_mixture_that_no_number_holds(weights: str, place: Path) -> None:
    sources = "data.sources={a: {path: text.txt}, b: {path: text.txt}}"
    ending = running.check(["data", "tiny.yaml", "data.source=null", sources, f"data.mixture={weights}"], place)
    assert ending.code == 2
    assert "is not a source and its weight" in ending.err


def test_a_weight_of_a_denoiser_that_no_number_holds(place: Path) -> None:
    given = ["objective.name=denoising", f"objective.denoisers={{R3: 1{'0' * 400}}}", *GUARD]
    ending = running.check(["train", "tiny.yaml", *given], place)
    assert ending.code == 2
    assert "denoisers.R3.weight" in ending.err
    assert "an integer of more than 40 digits" in ending.err


def test_epochs_without_an_end(place: Path) -> None:
    (place / "epochs.yaml").write_text(
        (place / "small.yaml").read_text().replace("max_steps: 1", "num_train_epochs: .inf")
    )
    ending = running.check(["train", "epochs.yaml", "--cache", "cache-epochs"], place / "tokenizer")
    shutil.rmtree(place / "cache-epochs")
    (place / "epochs.yaml").unlink()
    assert ending.code == 2
    assert "num_train_epochs asks for more than" in ending.err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["raptr", "width_raptr", "pld", "gradual_stacking", "midas", "late_expansion"])
def test_as_many_layers_as_there_may_be_are_planned_at_once(method: str, place: Path) -> None:
    assert running.check(["plan", "--layers", str(MOST_LAYERS), "--method", method], place).code == 0


def test_a_table_whose_texts_lie_outside_of_it(tmp_path: Path, place: Path) -> None:
    """Arrow reads an offset as it is: with one below zero Python ended with a SystemError."""
    offsets = pyarrow.py_buffer(struct.pack("<3i", 0, -5, 8))
    texts = pyarrow.StringArray.from_buffers(2, offsets, pyarrow.py_buffer(b"some text"))
    batch = pyarrow.record_batch({"text": texts})
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), batch.schema) as file:
        file.write(batch)
    ending = running.check(["data", "small.yaml", f"data.source={tmp_path / 'a.arrow'}", "--cache", "none"], tmp_path)
    assert ending.code == 2
    assert "not a whole .arrow file" in ending.err


@pytest.mark.parametrize("value", ["wide", "\ud800", None, 10**400])
def test_stored_tokens_whose_description_is_another(value: object, place: Path) -> None:
    command = ["data", "small.yaml", "--workers", "1", "--cache", "damaged"]
    assert running.run(command).code == 0
    description = next((place / "damaged").glob("*/description.json"))
    description.write_text(json.dumps({**json.loads(description.read_text()), "vocabulary": value}))
    ending = running.check(command, place)
    shutil.rmtree(place / "damaged")
    assert ending.code == 2
    assert "are damaged" in ending.err


def test_what_is_long_is_shortened_and_what_is_not_is_kept() -> None:
    assert shortened("a message\n  of two lines.") == "a message\n  of two lines."
    path = "/".join(["folder"] * 40)
    assert shortened(f"{path}: no such file.") == f"{path}: no such file."
    assert shortened("x" * 5000) == f"{'x' * 20}...(5000 characters)...{'x' * 20}"
    assert len(shortened("a b " * 5000)) < 700
    lines = shortened("\n".join(map(str, range(1000)))).split("\n")
    assert lines[29:32] == ["29", "... (940 lines)", "970"]


def test_every_number_gives_the_same_file_again(tmp_path: Path) -> None:
    for number in range(40):
        path, what = damage.text_file(number, tmp_path)
        content = path.read_bytes()
        assert (damage.text_file(number, tmp_path)[1], path.read_bytes()) == (what, content)
    assert set(files.WHOLES) >= {"store", "tokenizer", "run"}
