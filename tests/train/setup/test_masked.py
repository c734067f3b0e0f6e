"""Masked language models end to end: four architectures learn, with the head on masked positions only."""

import itertools
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from helpers.real_text import WIKI, needs
from helpers.runs import metrics, run, tiny
from raptr.config import parse
from raptr.errors import RaptrError
from raptr.model import count_flops
from raptr.train.engine import train
from raptr.train.setup.model import build_model
from raptr.train.task import plan_run, prepare_task
from reference.masked_head import loss_of_all

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ARCHITECTURES = {
    "bert": {"max_position_embeddings": 16},
    "roberta": {"max_position_embeddings": 18},  # the pad token's id is 1, so the first two are not used
    "roberta-prelayernorm": {"max_position_embeddings": 18},
    "modernbert": {},
}


def masked(architecture: str = "bert", **changes: Any) -> Any:
    more = {} if architecture == "modernbert" else NO_DROPOUT
    model = {"architecture": architecture, "config": {**SIZES, **ARCHITECTURES[architecture], **more}}
    return tiny(**{"model": model, "objective": {"name": "masked"}, **changes})


@pytest.mark.slow
@needs(WIKI)
def test_validation_loss_falls_on_wikipedia(tmp_path: Path) -> None:
    data = {
        "source": str(WIKI),
        "max_bytes": 400_000,
        "tokenizer": 600,
        "sequence_length": 16,
        "tokenizer_kind": "wordpiece",
    }
    whole = {"name": "masked", "whole_words": True}
    run(masked(objective=whole, data=data, training__max_steps=60), tmp_path / "run", tmp_path / "cache")
    losses = [line["eval_loss"] for line in metrics(tmp_path / "run", "eval")]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_validation_loss_falls_and_is_that_of_all_logits(architecture: str, tmp_path: Path, cache: Path) -> None:
    task, result = run(
        masked(architecture, training__max_steps=30, training__per_device_eval_batch_size=3), tmp_path / "run", cache
    )
    lines = metrics(tmp_path / "run", "eval")
    assert result["eval_loss"] < lines[0]["eval_loss"] - 0.2
    assert task.predictions == 2  # of 16 positions

    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "model").eval()
    assert model.config.model_type == architecture
    data = task.validation_data()["validation"]
    batch = task.collator(validation=True)([data[i] for i in range(len(data))])
    labels = torch.full_like(batch["input_ids"], -100)
    rows, places = (batch["labels"] != -100).nonzero(as_tuple=True)
    labels[rows, batch["masked_positions"][rows, places]] = batch["labels"][rows, places]
    with torch.no_grad():
        full = loss_of_all(model, batch["input_ids"], labels).item()
    assert result["eval_loss"] == pytest.approx(full, rel=1e-5), "each prediction counts once, in batches of any size"
    changed = torch.where(labels < 0, labels, (labels + 150) % 320)  # control
    with torch.no_grad():
        assert abs(loss_of_all(model, batch["input_ids"], changed).item() - full) > 0.05 * full


@pytest.mark.slow
def test_validation_counts_predictions_and_not_batches(tmp_path: Path, cache: Path) -> None:
    """Separators are never predicted, so sequences of short documents differ in how many predictions they have."""
    rows = [json.dumps({"text": f"w{i} " * (1 + 12 * (i % 9 > 4))}) for i in range(900)]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    data = {"source": str(tmp_path / "text.jsonl"), "tokenizer": 262, "sequence_length": 16}
    losses = []
    for size in (1, 3, 8):
        changes = {"training__max_steps": 3, "evaluation__every": 3, "training__per_device_eval_batch_size": size}
        config = masked(data=data, objective={"name": "masked", "rate": 0.5}, **changes)
        task, result = run(config, tmp_path / str(size), cache)
        losses.append(result["eval_loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    found, collate = task.validation_data()["validation"], task.collator(validation=True)
    counts = {int((collate([found[i]])["labels"] != -100).sum()) for i in range(len(found))}
    assert len(counts) > 1, "control: batches of one would count the same, whatever they predict"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_a_run_is_the_same_with_all_logits(
    architecture: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = masked(architecture, training__optim="sgd", training__gradient_accumulation_steps=2)
    task, result = run(config, tmp_path / "masked", cache)
    assert task.predictions is not None
    monkeypatch.setattr("raptr.train.task.predictions_of", lambda config, model: None)
    monkeypatch.setattr("raptr.train.run.attach_head", None)
    full, other = run(config, tmp_path / "all", cache)
    assert full.predictions is None
    assert other["eval_loss"] == pytest.approx(result["eval_loss"], rel=1e-5)
    for one, two in zip(metrics(tmp_path / "masked", "train"), metrics(tmp_path / "all", "train"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one["layer_flops"] == two["layer_flops"]
        assert one["total_flops"] < two["total_flops"]
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("masked", "all")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_flops_are_counted_as_they_are(tmp_path: Path, cache: Path) -> None:
    config = masked()
    task, result = run(config, tmp_path / "run", cache)
    model = build_model(config, task.model_config, device="meta")
    head = 3 * 2 * (16 * 16 + 16 * 320)  # by hand: transform and vocabulary, for one position
    assert task.costs.other == 4 * 2 * head
    assert count_flops(model, 16).other == 16 * head
    assert result["total_flops"] == result["layer_flops"] + 9 * 4 * 2 * head
    assert json.loads((tmp_path / "run" / "run.json").read_text())["flops"]["predictions"] == 2
    costs = plan_run(config).costs
    assert costs == task.costs
    causal, _ = run(tiny(), tmp_path / "causal", cache)
    assert causal.predictions is None
    assert "predictions" not in json.loads((tmp_path / "causal" / "run.json").read_text())["flops"]


@pytest.mark.slow
def test_every_batch_has_one_shape(cache: Path) -> None:
    task = prepare_task(masked(), cache)
    data, collate = task.training_data(200), task.collator()
    shapes, counts = set(), set()
    for step in range(200):
        batch = collate([data[i] for i in range(4 * step, 4 * step + 4)])
        shapes.add((tuple(batch["labels"].shape), tuple(batch["masked_positions"].shape)))
        counts |= set((batch["labels"] != -100).sum(dim=1).tolist())
    assert shapes == {((4, 2), (4, 2))}
    assert counts <= {1, 2}


@pytest.mark.slow
def test_the_saved_model_is_ordinary(tmp_path: Path, cache: Path) -> None:
    run(masked(), tmp_path / "run", cache)
    saved = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert saved["architectures"] == ["BertForMaskedLM"]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "model")
    assert model(torch.arange(16)[None]).logits.shape == (1, 16, 320)


def test_a_head_that_has_its_own_way_is_trained_on_all_positions_with_a_warning(cache: Path) -> None:
    config = masked("modernbert", model__config={**SIZES, "sparse_prediction": True})
    with pytest.warns(UserWarning, match="runs on all positions.*sparse_prediction=False"):
        task = prepare_task(config, cache)
    assert task.predictions is None
    assert "masked_positions" not in task.collator()([task.training_data(1)[0]])


@pytest.mark.slow
def test_whole_words_are_a_setting(tmp_path: Path, cache: Path) -> None:
    objective = {"name": "masked", "rate": 0.4}  # 6 of 16 tokens: at 2, most words have more
    task, result = run(masked(objective={**objective, "whole_words": True}), tmp_path / "run", cache)
    assert result["eval_loss"] < metrics(tmp_path / "run", "eval")[0]["eval_loss"]
    plain = prepare_task(masked(objective=objective), cache)
    items = [task.training_data(9)[i] for i in range(36)]
    whole, apart = task.collator()(items), plain.collator()(items)
    assert whole["labels"].shape == apart["labels"].shape
    assert not torch.equal(whole["masked_positions"], apart["masked_positions"])
    tokens = np.stack([item["tokens"] for item in items])
    space = {i for token, i in task.tokenizer.get_vocab().items() if token[0] in "ĠĊ"}

    def begun(batch: Any) -> float:
        """How many of the predictions, but the first, are in one word with the prediction before them."""
        rows = [i for i, labels in enumerate(batch["labels"]) if min(labels) >= 0]
        pairs = [(i, *pair) for i in rows for pair in itertools.pairwise(batch["masked_positions"][i].tolist())]
        return sum(b == a + 1 and int(tokens[i][b]) not in space for i, a, b in pairs) / len(pairs)

    assert begun(whole) > begun(apart) + 0.1


def test_text_without_spaces_is_masked_everywhere_and_it_is_said(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    characters = [chr(0x4E00 + i) for i in range(150)]
    lines = ["".join(np.random.default_rng(i).choice(characters, 40)) for i in range(400)]
    (tmp_path / "text.txt").write_text("".join(lines), encoding="utf-8")
    config = masked(
        data={"source": str(tmp_path / "text.txt"), "tokenizer": 420, "sequence_length": 16},
        objective={"name": "masked", "whole_words": True},
    )
    task = prepare_task(config, cache)
    assert re.search(
        r"whole words: of the tokens of .* (?!0\.0)\d+\.\d% belong to scripts without", capsys.readouterr().err
    )
    items = [task.training_data(50)[i] for i in range(200)]
    at = np.bincount(task.collator()(items)["masked_positions"].flatten().numpy(), minlength=16)
    assert at.min() > 0.4 * at.mean()  # before, only the first positions were masked
    prepare_task(masked(), cache)
    assert "whole words" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 600), ("unigram", 500)])
def test_other_tokenizers_train_too(kind: str, size: int, tmp_path: Path, cache: Path) -> None:
    data = {"source": "builtin:python", "max_bytes": 100_000, "tokenizer": size, "tokenizer_kind": kind}
    config = masked(
        "bert",
        data={**data, "sequence_length": 16},
        objective={"name": "masked", "whole_words": True},
        training__max_steps=20,
    )
    task, result = run(config, tmp_path / "run", cache)
    assert result["eval_loss"] < metrics(tmp_path / "run", "eval")[0]["eval_loss"] - 0.1
    assert task.model_config.vocab_size == size
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer("def self").input_ids == task.tokenizer("def self").input_ids


@pytest.mark.slow
def test_the_example_of_the_guide_is_valid(cache: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")
    example = re.findall(r"```yaml\n(.*?)```", guide, flags=re.S)[0]
    task = prepare_task(parse(yaml.safe_load(example), "docs/objectives.md"), cache)
    assert task.tokenizer.mask_token == "[MASK]"
    assert task.collator()([task.training_data(1)[0]])["labels"].shape == (1, 2)


@pytest.fixture(scope="module")
def maskless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer without a mask token, as GPT-2's."""
    folder = tmp_path_factory.mktemp("maskless")
    from tokenizers import pre_tokenizers

    names = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder / "vocab.json"


@pytest.mark.slow
def test_a_missing_mask_token_is_added_with_a_message(maskless: Path, tmp_path: Path, cache: Path) -> None:
    task = prepare_task(masked(data__tokenizer=str(maskless)), cache)
    assert task.added == ("<|mask|>",)
    assert (task.model_config.vocab_size, task.tokenizer.mask_token_id) == (258, 257)
    assert task.store.tokenizer.mask_token is None, "the stored tokens are anybody's"
    said = StringIO()
    train(task, tmp_path / "run", console=Console(file=said, width=500))
    assert "token <|mask|> added to the tokenizer, which lacked it" in said.getvalue()
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").mask_token == "<|mask|>"
    with_one = prepare_task(masked(), cache)  # control
    assert with_one.added == ()
    assert plan_run(masked(data__tokenizer=str(maskless))).costs == task.costs


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "fits"), [(257, False), (258, True), (320, True)])
def test_or_refused_where_the_embedding_cannot_hold_it(
    rows: int, fits: bool, maskless: Path, tmp_path: Path, cache: Path
) -> None:
    BertForMaskedLM(BertConfig(vocab_size=rows, max_position_embeddings=16, **SIZES)).save_pretrained(tmp_path / "bert")
    config = tiny(
        model={"from_pretrained": str(tmp_path / "bert")}, objective__name="masked", data__tokenizer=str(maskless)
    )
    if fits:
        assert prepare_task(config, cache).model_config.vocab_size == rows
        return
    with pytest.raises(RaptrError, match=r"has no mask token.* has 257 rows, which cannot hold the 258"):
        prepare_task(config, cache)


def test_a_tokenizer_without_words_is_refused_for_whole_words(tmp_path: Path, cache: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "def": 1, "[SEP]": 2, "[MASK]": 3}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.add_special_tokens(["[SEP]", "[MASK]", "[UNK]"])
    plain.save(str(tmp_path / "tokenizer.json"))
    config = masked(data__tokenizer=str(tmp_path / "tokenizer.json"), objective={"name": "masked", "whole_words": True})
    with pytest.raises(RaptrError, match="does not mark where words begin"):
        prepare_task(config, cache)


@pytest.mark.parametrize("architecture", ["roberta", "roberta-prelayernorm"])
def test_positions_that_a_roberta_leaves_unused_do_not_count(architecture: str, maskless: Path, cache: Path) -> None:
    config = masked(architecture, model__config={**SIZES, "max_position_embeddings": 17})
    with pytest.raises(RaptrError, match=re.escape("positions for 15 tokens")) as refused:
        prepare_task(config, cache)
    assert "max_position_embeddings to 18" in str(refused.value)
    with pytest.raises(RaptrError, match="the tokenizer has no pad token"):
        prepare_task(masked(architecture, data__tokenizer=str(maskless)), cache)
