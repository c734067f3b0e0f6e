"""Denoising: lengths, exact counts, the reference token by token, the inverse, statistics, purity, refusals.

Statistical bounds: a test alarms if the p-value is below 1e-6 (see test_masked.py).
"""

import random
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import chi2_contingency, chisquare

from raptr.config import parse
from raptr.errors import RaptrError
from raptr.objectives import (
    KNOWN,
    UL2,
    Denoiser,
    Denoising,
    Marks,
    decoder_only,
    encoder_decoder,
    packed,
    pair,
    rebuild,
    restore,
)
from raptr.objectives.denoising import prefix_mask
from raptr.objectives.forms import Packed
from raptr.objectives.spans import segment_lengths
from reference import denoising as reference

ALARM = 1e-6
WORDS = 1000
MARKS = Marks(
    sentinels=tuple(range(1099, 999, -1)), final=1, pad=0, start=2, modes={"NLU": 1100, "NLG": 1101, "S2S": 1102}
)


def text(rows, length, seed=0):
    return np.random.default_rng(seed).integers(3, WORDS, (rows, length)).astype(np.uint16)


def at(rows, epoch=0, first=0):
    return {"epochs": np.full(rows, epoch), "indices": np.arange(first, first + rows)}


def made(form, tokens, seed=5, marks=MARKS, **places):
    make = decoder_only if isinstance(form, Packed) else encoder_decoder
    return make(tokens, seed=seed, form=form, marks=marks, **(places or at(len(tokens))))


# The published settings: arXiv 2205.05131, table 1 (mean span, rate), and T5's lengths.
def test_the_seven_denoisers_are_the_papers():
    assert {(d.span, d.rate, d.mode) for d in UL2.values()} == {
        (3, 0.15, "NLU"),
        (8, 0.15, "NLU"),
        (None, 0.25, "S2S"),
        (3, 0.5, "NLG"),
        (8, 0.5, "NLG"),
        (64, 0.15, "NLG"),
        (64, 0.5, "NLG"),
    }
    assert set(KNOWN) - set(UL2) == {"C"}
    assert KNOWN["C"].rate == 1


@pytest.mark.parametrize(
    ("name", "length", "mode", "tokens", "inputs", "targets", "spans"),
    [
        ("R3", 512, False, 568, 512, 114, 28),  # as T5 counts them
        ("R3", 512, True, 567, 512, 114, 28),
        ("R8", 512, False, 588, 512, 100, 11),
        ("S", 512, False, 680, 512, 172, 1),
        ("X8", 512, False, 908, 512, 512, 57),
        ("X64", 512, False, 600, 512, 92, 1),
        ("X64-50", 512, False, 1006, 512, 512, 8),
        ("X3", 512, False, 602, 402, 402, 100),  # no more sentinels: shorter, not other counts
        ("C", 512, False, 510, 2, 512, 1),
        ("R3", 114, False, 126, 114, 26, 6),
    ],
)
def test_each_denoiser_has_a_pair_of_lengths_of_its_own(name, length, mode, tokens, inputs, targets, spans):
    form = pair(KNOWN[name], length, mode=mode)
    assert (form.tokens, form.inputs, form.targets, form.example.spans) == (tokens, inputs, targets, spans)
    batch = made(form, text(2, form.tokens))
    assert batch["input_ids"].shape == (2, inputs)
    assert batch["labels"].shape == batch["decoder_input_ids"].shape == (2, targets)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("length", [190, 256, 333, 512, 1024])
@pytest.mark.parametrize("mode", [False, True])
def test_a_pair_is_the_longest_that_fits(name, length, mode):
    denoiser = KNOWN[name]
    form = pair(denoiser, length, mode=mode)
    assert form.tokens == reference.longest(denoiser.rate, denoiser.span, length, 100, 1 + mode)
    assert form.inputs == length or form.targets >= length - 1 or form.example.spans == 100


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("length", [222, 256, 333, 512, 1024, 2048])
@pytest.mark.parametrize("sentinels", [20, 100])
def test_a_packed_sequence_is_filled_but_for_two_positions(name, length, sentinels):
    form = packed(KNOWN[name], length, sentinels=sentinels, mode=True)
    assert 0 <= form.padding <= 2
    assert all(not example.marked or example.spans <= sentinels for example in form.examples)
    sizes = [example.tokens for example in form.examples]
    assert max(sizes) - min(sizes) <= 0.1 * max(sizes)
    batch = made(form, text(3, form.tokens))
    assert batch["input_ids"].shape == batch["labels"].shape == (3, length)
    assert (batch["labels"] != -100).sum(axis=1).tolist() == [form.predicted] * 3


def test_long_sequences_hold_several_examples_and_short_ones_one():
    assert len(packed(UL2["X3"], 512).examples) == 1
    assert len(packed(UL2["X3"], 2048).examples) == 3
    assert len(packed(UL2["R3"], 512, sentinels=10).examples) == 3


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("modes", [True, False])
def test_equals_the_reference_token_by_token(name, modes):
    denoiser = KNOWN[name]
    for form in (pair(denoiser, 192, mode=modes), packed(denoiser, 230, sentinels=30, mode=modes)):
        tokens = text(12, form.tokens)
        batch = made(form, tokens, epochs=np.full(12, 3), indices=np.arange(12) + 40)
        first = [MARKS.modes[denoiser.mode]] if modes else []
        for row, index in enumerate(range(40, 52)):
            words = tokens[row].tolist()
            if isinstance(form, Packed):
                ids, labels, done = [], [], 0
                for place, example in enumerate(form.examples):
                    part = words[done : done + example.tokens]
                    done += example.tokens
                    if denoiser.span is None:
                        cut = 0 if denoiser.rate == 1 else len(part) - round(denoiser.rate * len(part))
                        inputs, targets = part[:cut], part[cut:] + ([1] if cut else [])
                    else:
                        counts = reference.shape(len(part), denoiser.rate, denoiser.span)
                        lengths = reference.segment_lengths(len(part), *counts, 5, 3, index, place)
                        inputs, targets = reference.corrupt(part, lengths, MARKS.sentinels)
                        targets = [*targets, 1]
                    ids += [*first, *inputs, *targets]
                    labels += [-100] * (len(first) + len(inputs)) + targets
                ids += [0] * (230 - len(ids))
                labels += [-100] * (230 - len(labels))
                labels[0] = -100
                assert batch["input_ids"][row].tolist() == ids
            else:
                counts = reference.shape(len(words), denoiser.rate, denoiser.span)
                if denoiser.rate == 1:
                    lengths = [0, len(words)]
                else:
                    lengths = reference.segment_lengths(len(words), *counts, 5, 3, index, 0)
                inputs, labels = reference.corrupt(words, lengths, MARKS.sentinels)
                labels = [*labels, 1]
                assert batch["input_ids"][row].tolist() == [*first, *inputs, 1]
                assert batch["decoder_input_ids"][row].tolist() == [2, *labels[:-1]]
            assert batch["labels"][row].tolist() == labels


LENGTHS = {"R3": 40, "R8": 60, "S": 40, "X3": 40, "X8": 40, "X64": 200, "X64-50": 140, "C": 40}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("layout", [pair, packed])
def test_sequences_are_rebuilt_from_inputs_and_targets(name, layout):
    form = layout(KNOWN[name], LENGTHS[name] * (1 if layout is pair else 2), sentinels=9, mode=True)
    tokens = text(10_000 if name == "X3" else 1_000, form.tokens, seed=len(name))  # most spans: X3
    batch = made(form, tokens)
    assert (restore(batch, form, MARKS) == tokens).all()
    labels = batch["labels"].copy()
    place = tuple(np.argwhere(np.isin(labels, tokens))[0])
    labels[place] += 1  # control: another target is another text
    ids = batch["input_ids"].copy()
    if layout is packed:
        ids[place] += 1
    assert not (restore({"input_ids": ids, "labels": labels}, form, MARKS) == tokens).all()


def test_inputs_and_targets_of_different_texts_are_not_put_together():
    with pytest.raises(RaptrError, match=r"inputs are \[99\] and those of the targets \[98\]"):
        rebuild([1, 99], [98, 2], sentinels=[99, 98])


@pytest.mark.parametrize("name", [name for name in UL2 if name != "S"])
def test_rate_and_mean_span_are_exact_and_near_the_denoisers(name):
    denoiser = UL2[name]
    form = pair(denoiser, 512)
    lengths = segment_lengths(form.example, seed=1, **at(500))
    taken = np.array([np.repeat(np.arange(lengths.shape[1]) % 2 == 1, row) for row in lengths])
    assert (taken.sum(axis=1) == form.example.noise).all()
    spans = (taken & ~np.pad(taken, ((0, 0), (1, 0)))[:, :-1]).sum(axis=1)
    assert (spans == form.example.spans).all()
    # Stated tolerances: the rate to half a token; the mean span to half a span over their number.
    assert abs(form.example.noise - denoiser.rate * form.tokens) <= 0.5
    assert abs(form.example.noise / form.example.spans - denoiser.span) <= denoiser.span / (2 * form.example.spans)
    assert not taken[:, 0].any(), "the first token is kept"
    assert taken[:, -1].all(), "the last is taken out"


@pytest.mark.parametrize(("name", "length"), [("R3", 114), ("R8", 256), ("X3", 114), ("X8", 114)])
def test_spans_and_places_are_distributed_as_in_t5(name, length):
    form = pair(UL2[name], length)
    n, noise, spans = form.tokens, form.example.noise, form.example.spans
    rng = random.Random(0)
    theirs = np.array([reference.t5_lengths(n, noise, spans, rng) for _ in range(3000)])
    ours = segment_lengths(form.example, seed=3, **at(3000))
    for kind in (0, 1):
        a, b = ours[:, kind::2], theirs[:, kind::2]
        assert _alike(a.ravel(), b.ravel()) > ALARM, "lengths"
        for number in {0, spans // 2, spans - 1}:
            assert _alike(a[:, number], b[:, number]) > ALARM, "lengths of one span"
        assert _alike(np.cumsum(a, axis=1)[:, spans // 2], np.cumsum(b, axis=1)[:, spans // 2]) > ALARM, "places"
        flat = np.random.default_rng(0).integers(1, 2 * b.mean(), b.size, endpoint=True)
        assert _alike(a.ravel(), flat) < ALARM  # control: other lengths of the same mean


def _alike(a, b):
    """The p-value of two samples of whole numbers being of one distribution."""
    edges = np.unique(np.quantile(np.concatenate([a, b]), np.linspace(0, 1, 12)))
    table = np.array([np.histogram(x, [*edges, np.inf])[0] for x in (a, b)])
    return chi2_contingency(table[:, table.sum(axis=0) > 20]).pvalue


def test_every_division_is_equally_likely():
    form = pair(Denoiser(rate=0.5, span=2), 12)  # 4 spans: 3 of 6 places to cut each
    assert (form.tokens, form.example.noise, form.example.spans) == (14, 7, 4)
    lengths = segment_lengths(form.example, seed=0, **at(8000))
    _, counts = np.unique(lengths[:, 1::2], axis=0, return_counts=True)
    assert len(counts) == 20  # 6 choose 3
    assert chisquare(counts).pvalue > ALARM
    _, both = np.unique(lengths, axis=0, return_counts=True)
    assert len(both) == 400  # kept and taken parts are drawn independently
    assert chisquare(both).pvalue > ALARM


@pytest.mark.slow
@pytest.mark.parametrize("layout", [pair, packed])
def test_a_window_is_corrupted_alike_in_any_batch_and_process(layout):
    form = layout(UL2["R3"], 120, sentinels=4, mode=True)
    tokens = text(16, form.tokens)
    whole = made(form, tokens, **at(16, epoch=2))
    for rows in ([5], [15, 5, 0], [5, 5]):
        part = made(form, tokens[rows], epochs=np.full(len(rows), 2), indices=np.array(rows))
        assert all((array == whole[name][rows]).all() for name, array in part.items())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        make = partial(decoder_only if layout is packed else encoder_decoder, seed=5, form=form, marks=MARKS)
        there = pool.submit(make, tokens, **at(16, epoch=2)).result()
    assert all((array == whole[name]).all() for name, array in there.items())


@pytest.mark.parametrize("change", [{"seed": 6}, {"epochs": np.full(8, 1)}, {"indices": np.arange(8) + 8}])
def test_another_seed_epoch_or_index_gives_another_corruption(change):
    form = pair(UL2["R3"], 120)
    tokens = text(8, form.tokens)
    one, other = made(form, tokens, **at(8)), made(form, tokens, **{**at(8), **change})
    assert all((one["labels"][i] != other["labels"][i]).any() for i in range(8))


def test_examples_of_one_sequence_are_drawn_apart():
    form = packed(UL2["R3"], 240, sentinels=4)
    a, b = form.examples[:2]
    assert a == b
    first, second = (segment_lengths(a, seed=0, **at(50), place=place) for place in (0, 1))
    assert (first != second).any(axis=1).all()


@pytest.mark.parametrize(("name", "length"), [("R3", 61), ("S", 30), ("C", 30), ("X3", 62)])
def test_prefix_attention_sees_all_inputs_of_its_own_example(name, length):
    form = packed(KNOWN[name], length, sentinels=3)
    sizes = [(example.inputs, example.targets) for example in form.examples]
    assert prefix_mask(form).tolist() == reference.seen(sizes, form.padding)
    batch = decoder_only(text(2, form.tokens), seed=0, **at(2), form=form, marks=MARKS, prefix=True)
    assert batch["attention_mask"].shape == (2, 1, length, length)
    assert batch["attention_mask"].dtype == np.bool_
    plain = decoder_only(text(2, form.tokens), seed=0, **at(2), form=form, marks=MARKS)
    assert set(plain) == {"input_ids", "labels"}
    assert (plain["input_ids"] == batch["input_ids"]).all()


def test_a_batch_of_several_denoisers_is_each_of_them():
    forms = tuple(pair(UL2[name], 60, mode=True) for name in ("R3", "S", "X3"))
    objective = Denoising(forms=forms, marks=MARKS, seed=5)
    kinds = np.array([2, 0, 1, 0])
    windows = [text(1, forms[kind].tokens, seed=i)[0] for i, kind in enumerate(kinds)]
    batch = objective(windows, **at(4), denoisers=kinds)
    for i, kind in enumerate(kinds):
        alone = objective([windows[i]], **at(1, first=i), denoisers=np.array([kind]))
        assert "attention_mask" not in alone
        form = forms[kind]
        assert batch["input_ids"][i, : form.inputs].tolist() == alone["input_ids"][0].tolist()
        assert batch["labels"][i, : form.targets].tolist() == alone["labels"][0].tolist()
        assert batch["decoder_input_ids"][i, : form.targets].tolist() == alone["decoder_input_ids"][0].tolist()
        assert batch["attention_mask"][i].tolist() == [1] * form.inputs + [0] * (60 - form.inputs)
        assert set(batch["labels"][i, form.targets :].tolist()) <= {-100}
    shapes = tuple(packed(UL2[name], 60, mode=True) for name in ("R3", "S", "X3"))
    rows = [text(1, shapes[kind].tokens, seed=i)[0] for i, kind in enumerate(kinds)]
    batch = Denoising(forms=shapes, marks=MARKS, seed=5)(rows, **at(4), denoisers=kinds)
    for i, kind in enumerate(kinds):
        alone = made(shapes[kind], rows[i][None], **at(1, first=i))
        assert all((array[i] == alone[name][0]).all() for name, array in batch.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": 1.0, "span": 3}, "only without span"),
        ({"rate": 0.5, "span": 0.5}, "at least 1 token"),
        ({"rate": 0.5, "span": float("nan")}, "span is nan"),
        ({"rate": 0.5, "span": float("inf")}, "span is inf"),
        ({"rate": 0.8, "span": 3}, "fewer tokens than there are spans"),
        ({"rate": 0.5, "mode": "NLP"}, "'NLP'; expected one of NLU, NLG, S2S"),
    ],
)
def test_what_is_no_denoiser_is_refused(settings, message):
    with pytest.raises(RaptrError, match=message):
        Denoiser(**settings)


@pytest.mark.parametrize("layout", [pair, packed])
@pytest.mark.parametrize(
    ("name", "length"), [("X64", 128), ("X64-50", 30), ("R8", 20), ("R3", 8), ("X3", 3), ("S", 2), ("C", 0)]
)
def test_sequences_too_short_for_a_denoiser_are_refused(name, length, layout):
    with pytest.raises(RaptrError, match=rf"sequences of {length} positions are too short .*data.sequence_length"):
        layout(KNOWN[name], length)
    assert layout(KNOWN[name], 256)


@pytest.mark.parametrize(("name", "tokens"), [("R3", 10), ("R8", 31), ("S", 3), ("X3", 3), ("X64", 217)])
def test_it_is_said_how_many_tokens_have_a_span(name, tokens):
    assert not any(KNOWN[name].counts(n)[1] for n in range(1, tokens))
    assert KNOWN[name].counts(tokens)[1] == 1
    with pytest.raises(RaptrError, match=rf"needs {tokens} tokens for its first span"):
        pair(KNOWN[name], 1)


@pytest.mark.parametrize("settings", [{"rate": 0.5, "span": 1e308}, {"rate": 1e-9, "span": 2}, {"rate": 5e-324}])
def test_absurd_denoisers_are_refused_at_once(settings):
    for layout in (pair, packed):
        with pytest.raises(RaptrError, match="sequences of 512 positions are too short"):
            layout(Denoiser(**settings), 512)


FORM = pair(UL2["R3"], 60)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": text(2, 60)}, "windows of 60 tokens were given to a denoiser that takes"),
        ({"tokens": text(2, FORM.tokens)[0]}, "shape"),
        ({"tokens": text(2, FORM.tokens).astype(float)}, "whole numbers"),
        ({"epochs": np.zeros(3, int)}, "one number for every window"),
        ({"indices": np.zeros((2, 1), int)}, "one number for every window"),
        ({"marks": Marks(sentinels=(1000,), final=1, pad=0, start=0)}, "there are 1 sentinels, and 3 spans"),
        ({"tokens": np.full((2, FORM.tokens), 1099)}, "sentinels in the text"),
    ],
)
def test_what_cannot_be_denoised_is_refused(change, message):
    arguments = {"tokens": text(2, FORM.tokens), **at(2), "seed": 0, "form": FORM, "marks": MARKS}
    assert encoder_decoder(**arguments)["labels"].shape == (2, FORM.targets)
    with pytest.raises(RaptrError, match=message):
        encoder_decoder(**{**arguments, **change})


def test_the_guides_examples_are_as_they_say():
    guide = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.S)
    exec(code, {})
    example = re.findall(r"```yaml\n(.*?)```", guide, flags=re.S)[1]
    found = parse({"name": "guide", **yaml.safe_load(example)}, "docs/objectives.md").objective
    assert found.specs() == (KNOWN["C"], KNOWN["S"], KNOWN["R3"])
