"""The counter-based draw: no state, every place its own words."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from raptr.plan import rng


def test_words_are_pinned() -> None:
    assert [hex(word) for word in rng.words(1, rng.ORDER, (3, 4, 5), 5).tolist()] == [
        "0x3a2521b7927bbb55",
        "0xafc7ff19479996f0",
        "0x37d95196e907db97",
        "0x19dd01d453e1f915",
        "0x29241b625856eaec",
    ]


def test_words_are_a_function_of_seed_purpose_and_place() -> None:
    places = list(
        itertools.product((0, 1, 2**64 - 1), (rng.PATHS, rng.MASKS, rng.ORDER), itertools.product(range(3), repeat=3))
    )
    first = [tuple(rng.words(seed, purpose, place, 8).tolist()) for seed, purpose, place in places]
    again = [tuple(rng.words(seed, purpose, place, 8).tolist()) for seed, purpose, place in reversed(places)]
    assert again[::-1] == first
    # No two places share a word, so no stream runs into another one.
    assert len({word for words in first for word in words}) == 8 * len(places)


def test_more_words_go_on_where_fewer_end() -> None:
    many = rng.words(5, rng.PATHS, (1, 2, 3), 100).tolist()
    assert [rng.words(5, rng.PATHS, (1, 2, 3), count).tolist() for count in (0, 1, 7, 50)] == [
        many[:0],
        many[:1],
        many[:7],
        many[:50],
    ]


def test_uniforms_are_the_upper_bits_in_the_half_open_unit_interval() -> None:
    edge = np.array([0, 2**11 - 1, 2**11, 2**63, 2**64 - 1], dtype=np.uint64)
    assert rng.uniforms(edge).tolist() == [0.0, 0.0, 2.0**-53, 0.5, 1 - 2.0**-53]


def test_below_is_the_comparison_of_uniforms() -> None:
    words = np.concatenate(
        [np.array([0, 2**11 - 1, 2**11, 2**63, 2**64 - 1], dtype=np.uint64), rng.words(0, rng.PATHS, (1, 2, 3), 995)]
    )
    numbers = rng.uniforms(words)
    for p in (0.0, 2.0**-53, 0.25, 0.1 + 0.2, 0.5, 1 - 2.0**-53, 1.0, *numbers[:50].tolist()):
        assert rng.below(words, p).tolist() == (numbers < p).tolist()
    each = np.roll(numbers, 1)
    each[::3] = numbers[::3]  # the number itself is not below it
    assert rng.below(words, each).tolist() == (numbers < each).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_uniforms_are_uniform_along_steps(seed: int) -> None:
    # False-alarm rate 1e-6 over the three seeds and two tests.
    values = np.array([rng.uniforms(rng.words(seed, rng.PATHS, (step, 0, 0), 4)) for step in range(1000)])
    assert kstest(values.ravel(), "uniform").pvalue * 6 > 1e-6
    cells = np.histogram2d(values[:-1, 0], values[1:, 0], bins=8, range=((0, 1), (0, 1)))[0]
    assert chisquare(cells.ravel()).pvalue * 6 > 1e-6
    assert kstest((values**1.2).ravel(), "uniform").pvalue < 1e-6
