"""Windows of several lengths: every token once an epoch, no padding, shares, any window at any time; their marks."""

import copy
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from raptr.data import Sequences, ValidationData, WindowCollator, WindowData, WindowValidation, mix, train_tokenizer
from raptr.data import turns_of as make_turns
from raptr.data.samples.windows import BLOCK
from raptr.data.tokens.special import mark_names, marks_of, with_marks
from raptr.data.tokens.tokenizer import encoder
from raptr.errors import RaptrError
from raptr.objectives import KNOWN, UL2, Denoising, Marks, packed, pair

SHARES = [0.5, 0.2, 0.3]
SIZES = [13, 40, 21]
MARKS = Marks(sentinels=tuple(range(70_099, 69_999, -1)), final=1, pad=0, start=0)


def windows(rows=3, alike=True, samples=3000, tokens=8000, seed=4, sources=None, weights=None):
    sources = sources or {"data": Sequences(np.arange(tokens), 80)}
    return WindowData(mix(sources, weights), make_turns(SHARES, SIZES), seed, samples, rows, alike)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("alike", [True, False])
def test_every_token_is_used_once_an_epoch(rows, alike):
    data = windows(rows, alike)
    streams = [np.concatenate([data[i]["tokens"] for i in range(row, len(data), rows)]) for row in range(rows)]
    # Each row's stream is whole stretches, and all rows together go through the stretches of the mixture in order.
    seen = []
    for number in range(min(map(len, streams)) // 80):
        for stream in streams:
            stretch = stream[80 * number : 80 * number + 80]
            assert stretch[0] % 80 == 0
            assert (stretch == stretch[0] + np.arange(80)).all()
            seen.append(int(stretch[0]) // 80)
    assert len(seen) >= 400
    for epoch in range(4):
        assert sorted(seen[100 * epoch : 100 * epoch + 100]) == list(range(100)), "each stretch once an epoch"
    assert seen[:100] != seen[100:200], "in another order each time"


def test_several_sources_are_mixed_as_sequences_are():
    sources = {"a": Sequences(np.arange(8000), 80), "b": Sequences(np.arange(8000) + 10**6, 80)}
    data = windows(sources=sources, weights={"a": 0.75, "b": 0.25})
    tokens = np.concatenate([data[i]["tokens"] for i in range(len(data))])
    assert np.mean(tokens >= 10**6) == pytest.approx(0.25, abs=0.01)
    by_size = windows(sources=sources)
    tokens = np.concatenate([by_size[i]["tokens"] for i in range(len(by_size))])
    assert np.mean(tokens >= 10**6) == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_any_window_can_be_asked_for_in_any_order_and_process():
    data = windows(alike=False)
    forward = [data[i] for i in range(300)]
    for i in (299, 17, 123, 0):
        fresh = windows(alike=False, samples=10_000)[i]  # a longer run begins alike
        assert (fresh["tokens"] == forward[i]["tokens"]).all()
        assert {**fresh, "tokens": 0} == {**forward[i], "tokens": 0}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(data.__getitem__, 299).result()
    assert (there["tokens"] == forward[299]["tokens"]).all()
    assert not all(len(a["tokens"]) == len(windows(seed=5)[i]["tokens"]) for i, a in enumerate(forward[:30]))
    far = windows(samples=3 * BLOCK * 40)
    assert far[3 * BLOCK * 39 + 1]["epoch"] > 10


def test_each_denoiser_has_its_share_exactly_in_a_block_and_evenly_within():
    turns = make_turns(SHARES, SIZES)
    kinds = np.array([turns.at(turn, seed=1)[0] for turn in range(BLOCK)])
    for kind, share in enumerate(SHARES):
        assert turns.shares[kind] == pytest.approx(share, abs=1 / BLOCK)
        assert (kinds == kind).sum() == turns.quotas[kind]
        running = np.cumsum(kinds == kind)
        # Stated tolerance, for K kinds: 1 + (K - 2) share, and the rounding of the shares.
        drift = running - share * np.arange(1, BLOCK + 1)
        assert np.abs(drift).max() <= 1 + len(SHARES) * share + 1
    other = np.array([turns.at(turn, seed=1, row=1)[0] for turn in range(BLOCK)])
    assert (kinds != other).mean() > 0.3, "rows have orders of their own"
    assert (kinds != [turns.at(BLOCK + turn, seed=1)[0] for turn in range(BLOCK)]).mean() > 0.3, "blocks too"
    starts = [turns.at(turn, seed=1)[1] for turn in range(2 * BLOCK)]
    expected = np.cumsum([0, *(SIZES[turns.at(turn, seed=1)[0]] for turn in range(2 * BLOCK - 1))])
    assert starts == expected.tolist(), "where a window begins is the sum of those before it"


def test_a_micro_batch_is_of_one_denoiser_or_of_each_rows_own():
    alike = [{windows(4)[i]["kind"] for i in range(4 * m, 4 * m + 4)} for m in range(40)]
    assert all(len(kinds) == 1 for kinds in alike)
    assert len(set.union(*alike)) == 3
    own = [{windows(4, alike=False)[i]["kind"] for i in range(4 * m, 4 * m + 4)} for m in range(40)]
    assert any(len(kinds) > 1 for kinds in own)


@pytest.mark.slow
@pytest.mark.parametrize("length", [512, 256])
@pytest.mark.parametrize("layout", [pair, packed])
def test_less_than_two_percent_of_a_million_tokens_is_padding(layout, length):
    names = list(UL2)
    forms = tuple(layout(UL2[name], length) for name in names)
    tokens = np.random.default_rng(0).integers(2, 32_000, 400_000).astype(np.uint16)
    turns = make_turns([1 / 7] * 7, [form.tokens for form in forms])
    mixture = mix({"data": Sequences(tokens, 8 * length)})
    data = WindowData(mixture, turns, seed=0, samples=10**5, rows=16, alike=layout is pair)
    collate = WindowCollator(Denoising(forms=forms, marks=MARKS, seed=0))
    raw = positions = padding = 0
    shapes = set()
    step = 0
    while raw < 1_000_000:
        items = [data[i] for i in range(16 * step, 16 * step + 16)]
        batch = collate(items)
        raw += sum(len(item["tokens"]) for item in items)
        for name in ("input_ids", "decoder_input_ids") if layout is pair else ("input_ids",):
            positions += batch[name].numel()
            padding += int((batch[name][:, 1:] == MARKS.pad).sum())  # a decoder begins with it
        shapes.add(tuple(tuple(array.shape) for array in batch.values()))
        step += 1
    assert len(shapes) <= (7 if layout is pair else 1), "a few shapes"
    assert padding / positions < 0.02
    # control: with one pair of lengths for all, as T5 has it, the 15 % denoisers alone are 40 % padding
    assert 1 - (512 + 114) / (512 + 512) > 0.38


# Validation


def validation(count=20, part="all", tokens=6000):
    cells = ValidationData(Sequences(np.arange(tokens), max(SIZES)), part=part).at_most(count)
    return WindowValidation(cells, make_turns(SHARES, SIZES), predicted=(3, 10, 7))


def test_validation_has_every_denoiser_in_its_share_the_same_for_every_run():
    data = validation()
    kinds = [data[i]["kind"] for i in range(20)]
    assert kinds == [0] * 10 + [1] * 4 + [2] * 6
    assert [len(data[i]["tokens"]) for i in range(20)] == [SIZES[kind] for kind in kinds]
    assert data.mean_predicted == (10 * 3 + 4 * 10 + 6 * 7) / 20
    starts = [int(data[i]["tokens"][0]) for i in range(20)]
    assert len(set(starts)) == 20, "of different text"
    for kind in range(3):
        mine = [start for start, other in zip(starts, kinds, strict=True) if other == kind]
        assert max(mine) - min(mine) > 3500, "each spread over the text"
    assert sorted(validation(3)[i]["kind"] for i in range(3)) == [0, 1, 2]
    halves = [{int(t) for i in range(20) for t in validation(part=part)[i]["tokens"]} for part in ("tuning", "report")]
    assert not halves[0] & halves[1]


def test_validation_with_too_few_sequences_for_every_denoiser_is_refused():
    with pytest.raises(RaptrError, match=r"2 validation sequences of 40 tokens .* 3 denoisers"):
        validation(2)
    with pytest.raises(RaptrError, match=r"raise evaluation\.sequences, or hold out more text"):
        validation(20, tokens=90)


@pytest.mark.parametrize(("change", "message"), [({"seed": -1}, "seed is -1"), ({"samples": 0}, "0 training samples")])
def test_what_is_no_run_is_refused(change, message):
    with pytest.raises(RaptrError, match=message):
        windows(**change)
    data = windows(samples=5)
    for sample in (-1, 5):
        with pytest.raises(IndexError, match="there are 0 to 4"):
            data[sample]


# Marks


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["low lower lowest <extra_id_3> [NLU] words"] * 40, 280)


def test_sentinels_and_modes_are_added_behind_all_other_tokens(tokenizer):
    before = copy.deepcopy(tokenizer.get_vocab())
    made, added = with_marks(tokenizer, 100, modes=True)
    assert added == mark_names(100, modes=True)
    assert len(added) == 103
    assert tokenizer.get_vocab() == before, "the tokenizer that was given is left alone"
    marks = marks_of(made, 100, modes=True, start=None)
    assert sorted({*marks.sentinels, *marks.modes.values()}) == list(range(280, 383))
    assert (marks.final, marks.pad, marks.start) == (made.eos_token_id, made.pad_token_id, made.pad_token_id)
    assert marks_of(made, 100, modes=False, start=7).modes == {}
    assert marks_of(made, 100, modes=False, start=7).start == 7
    again, none = with_marks(made, 100, modes=True)
    assert again is made
    assert none == ()
    _, some = with_marks(with_marks(tokenizer, 98, modes=False)[0], 100, modes=True)
    assert some == ("<extra_id_98>", "<extra_id_99>", "[NLU]", "[NLG]", "[S2S]")


def test_no_text_becomes_other_tokens_by_them(tokenizer):
    made, _ = with_marks(tokenizer, 100, modes=True)
    texts = ["low <extra_id_3> lowest", "[NLU] words", "<extra_id_99>"]
    assert encoder(made)(texts) == encoder(tokenizer)(texts)
    assert max(max(row) for row in encoder(made)(texts)) < 280
    assert made.decode(encoder(made)(texts)[0]) == texts[0]
    assert made("<extra_id_3>")["input_ids"] == [283]  # control: read as a special token, it is one


def test_known_denoisers_need_no_more_than_a_hundred_sentinels():
    for denoiser in KNOWN.values():
        for length in (512, 2048):
            assert pair(denoiser, length).example.spans <= 100
