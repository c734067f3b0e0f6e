"""The presets: each builds, is as large as published, plans, says where its values are from, and is listed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raptr.cli import app as cli
from raptr.config import load, presets
from raptr.config.catalogue import preset_entry, preset_text
from raptr.model import Inspection
from raptr.plan import plan_cost
from raptr.train.inspect_name import inspect_name
from raptr.train.setup.arguments import batch_of, build_arguments
from raptr.train.task import plan_run

EXPECTED = ["bert-base", "bert-base-preln", "bert-large", "demo", "llama-150m", "llama-1b", "modernbert-base"]
EXPECTED += ["tiny-bert", "tiny-llama", "tiny-ul2", "tiny-ul2-decoder", "ul2-1.6b", "ul2-base"]


def bert(vocabulary: int, hidden: int, layers: int, inner: int, positions: int, kinds: int, *, last_norm: bool) -> int:
    """Parameters of a BERT with a masked language modelling head that shares the embedding."""
    norm = 2 * hidden
    embedding = (vocabulary + positions + kinds) * hidden + norm
    layer = 4 * (hidden**2 + hidden) + norm + hidden * inner + inner + inner * hidden + hidden + norm
    head = hidden**2 + hidden + norm + vocabulary
    return embedding + layers * layer + head + (norm if last_norm else 0)


def llama(vocabulary: int, hidden: int, layers: int, inner: int, key_values: int, *, tied: bool) -> int:
    """Parameters of a Llama; ``key_values`` is the width of the keys, and of the values."""
    layer = 2 * hidden**2 + 2 * hidden * key_values + 3 * hidden * inner + 2 * hidden
    return vocabulary * hidden * (1 if tied else 2) + layers * layer + hidden


def t5(vocabulary: int, hidden: int, layers: int, inner: int, heads: int, key_value: int) -> int:
    """Parameters of a T5 with gated layers, as many in the encoder as in the decoder, and a tied head."""
    attention, mlp = 4 * hidden * heads * key_value, 3 * hidden * inner
    encoder, decoder = attention + mlp + 2 * hidden, 2 * attention + mlp + 3 * hidden
    biases = 2 * 32 * heads  # 32 buckets of distances, in the first layer of each stack
    return vocabulary * hidden + layers * (encoder + decoder) + biases + 2 * hidden


# Typed from their sources: the counts that the libraries' model pages give to the published weights.
PUBLISHED = {
    "bert-base": 109_514_298,  # bert-base-uncased as BertForMaskedLM; the paper says 110M
    "bert-large": 335_174_458,  # bert-large-uncased as BertForMaskedLM; the paper says 340M
    "modernbert-base": 149_655_232,  # ModernBertForMaskedLM; the paper says 149M, without the head
    "llama-1b": 1_100_048_384,  # TinyLlama-1.1B; its paper says 1.1B
    "ul2-base": 247_577_856 - 32128 * 768,  # t5-v1_1-base, less its own head, which transformers 5 does not build
}
IN_THE_PAPER = {"bert-base": 110e6, "bert-large": 340e6, "modernbert-base": 149e6, "llama-1b": 1.1e9, "ul2-1.6b": 1.6e9}
COMPUTED = {  # ours: no such model is published
    "bert-base-preln": bert(30522, 768, 12, 3072, 514, 1, last_norm=True),
    "llama-150m": llama(32000, 896, 12, 2560, 896, tied=True),
    "ul2-1.6b": llama(32128, 2048, 24, 7168, 2048, tied=False),
    "tiny-ul2": t5(1024 + 16 + 3, 48, 4, 128, 3, 16),
    "tiny-ul2-decoder": llama(1024 + 16 + 3, 48, 6, 128, 48, tied=True),
    "tiny-bert": bert(1024, 48, 6, 192, 128, 2, last_norm=False),
    "tiny-llama": llama(1024, 48, 6, 128, 48, tied=True),
    "demo": llama(1024, 32, 12, 88, 32, tied=True),
}


@pytest.fixture(scope="module")
def inspected() -> dict[str, Inspection]:
    """What `raptr inspect` finds in every preset."""
    return {name: inspect_name(name) for name in presets()}


def test_all_presets_are_there() -> None:
    assert presets() == EXPECTED
    assert sorted(PUBLISHED | COMPUTED) == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_preset_has_as_many_parameters_as_is_published(name: str, inspected: dict[str, Inspection]) -> None:
    found = inspected[name].parameters
    assert found == (PUBLISHED | COMPUTED)[name]
    assert found == preset_entry(name).parameters, "the list says the same"
    assert found == pytest.approx(IN_THE_PAPER.get(name, found), rel=0.02)


def test_the_formulas_give_what_is_published() -> None:
    assert bert(30522, 768, 12, 3072, 512, 2, last_norm=False) == PUBLISHED["bert-base"]
    assert bert(30522, 1024, 24, 4096, 512, 2, last_norm=False) == PUBLISHED["bert-large"]
    assert llama(32000, 2048, 22, 5632, 4 * 64, tied=False) == PUBLISHED["llama-1b"]
    assert t5(32128, 768, 12, 2048, 12, 64) == PUBLISHED["ul2-base"]
    layers = 22 * (768 * 3 * 768 + 768**2 + 768 * 2 * 1152 + 1152 * 768 + 2 * 768) - 768  # the first has no norm before
    head = 768**2 + 768 + 50368
    assert 50368 * 768 + 768 + layers + 768 + head == PUBLISHED["modernbert-base"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_preset_is_inspected_and_planned(name: str, inspected: dict[str, Inspection]) -> None:
    config, found = load(name), inspected[name]
    assert found.length == config.data.sequence_length
    assert tuple(stack.layers for stack in found.stacks) == preset_entry(name).layers
    assert found.costs is not None
    planned = plan_run(config)
    plan, costs = planned.plan, planned.costs
    batch = batch_of(build_arguments(config, Path("unused")))
    if config.objective.name != "denoising":  # whose lengths are those of each denoiser
        assert costs.all_layers == pytest.approx(found.costs.all_layers * batch)
    if config.objective.name == "causal":  # otherwise, the head runs on what is predicted
        assert costs.total == pytest.approx(found.costs.total * batch)
    saved = sum(stage.layers for stage in plan_cost(plan, costs)) / (plan.stages[-1].stop * costs.all_layers)
    shares = [sizes[0] / found.stacks[0].layers for sizes in (stage.sizes for stage in plan.stages)]
    weights = range(1, 1 + len(shares)) if "proportional" in preset_entry(name).method else [1] * len(shares)
    mean = sum(weight * share for weight, share in zip(weights, shares, strict=True)) / sum(weights)
    assert saved == pytest.approx(mean, rel=1e-3)


def test_published_batches_and_lengths() -> None:
    batches = {name: batch_of(build_arguments(load(name), Path("unused"))) for name in EXPECTED}
    assert batches["bert-base"] == batches["bert-large"] == batches["bert-base-preln"] == 256
    assert batches["modernbert-base"] == 4608
    assert batches["llama-1b"] * 2048 == 2**21


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "demo"])
def test_every_value_of_a_preset_has_a_source(name: str) -> None:
    names = {"ours", "RaPTr", "BERT", "Llama", *re.findall(r'"(\w+)":', preset_text(name))}
    for line in preset_text(name).splitlines():
        value = re.match(r"\s*(\w+): ([^#\s][^#]*)(#.*)?$", line)
        if value is None or (value[1] in ("name", "method", "architecture", "dataset", "source") and not value[3]):
            continue
        assert value[3], f"{line!r} has no source"
        assert any(word in value[3] for word in names), line


@pytest.fixture
def raptr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A `raptr` command in this process: exit code and what it printed to either stream."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raptr", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return call


def test_presets_are_listed_with_a_line_each(raptr: Any) -> None:
    code, out, err = raptr("presets")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "bert-base bert 109,514,298 12 masked raptr 6-8-10-12 equal" in lines
    assert "llama-1b llama 1,100,048,384 22 causal raptr 11-15-18-22 proportional" in lines
    assert [line.split()[0] for line in lines if re.search(r" [\d,]{5,} ", line)] == EXPECTED


def test_a_preset_is_printed_as_a_file_that_loads(raptr: Any, tmp_path: Path) -> None:
    code, out, _ = raptr("presets", "modernbert-base")
    assert code == 0
    (tmp_path / "mine.yaml").write_text(out, encoding="utf-8")
    assert load(tmp_path / "mine.yaml") == load("modernbert-base")


def test_an_unknown_preset_ends_with_2_and_the_known_ones(raptr: Any) -> None:
    code, out, err = raptr("presets", "bert-bas")
    assert (code, out) == (2, "")
    assert "preset 'bert-bas' is not known; there are: bert-base, " in err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["plan", "inspect"])
def test_the_verbs_take_a_preset(verb: str, raptr: Any) -> None:
    code, out, _ = raptr(verb, "tiny-bert")
    assert code == 0
    assert "6 " in out


@pytest.mark.slow
def test_the_list_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.argv = ['raptr', 'presets']\n"
        "from raptr.cli import app as cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'altair', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
