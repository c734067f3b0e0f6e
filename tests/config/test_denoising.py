"""The section ``objective`` of denoising: short and long forms, what is refused, and its way to YAML and back."""

import pytest
import yaml

from helpers.runs import tiny
from raptr.config import dump, parse
from raptr.errors import RaptrError
from raptr.objectives import UL2, Denoiser


def objective(**settings):
    return tiny(objective={"name": "denoising", **settings}).objective


def test_without_settings_it_is_the_papers_seven_in_equal_shares():
    found = objective()
    assert found.specs() == tuple(UL2.values())
    assert found.weights() == (1 / 7,) * 7
    assert (found.mode_tokens, found.sentinels, found.attention) == (True, 100, "causal")


def test_a_number_is_the_weight_of_a_known_denoiser():
    later = objective(denoisers={"C": 0.6, "S": 0.2, "R3": 0.2}, mode_tokens=False)  # causal, prefix and span
    assert later.weights() == (0.6, 0.2, 0.2)
    assert [(d.rate, d.span) for d in later.specs()] == [(1.0, None), (0.25, None), (0.15, 3.0)]
    assert objective(denoisers={"S": 1}).weights() == (1.0,)


def test_a_users_own_denoiser_and_a_changed_one():
    found = objective(
        denoisers={"mine": {"rate": 0.3, "span": 5, "mode": "NLU", "weight": 0.5}, "S": {"rate": 0.5, "weight": 0.5}}
    )
    assert found.specs() == (Denoiser(rate=0.3, span=5, mode="NLU"), Denoiser(rate=0.5, mode="S2S"))


def test_it_is_written_and_read_back_as_it_was():
    config = tiny(objective={"name": "denoising", "denoisers": {"C": 0.6, "S": 0.2, "R3": 0.2}})
    assert parse(yaml.safe_load(dump(config)), "again") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"denoisers": {"R3": 0.5, "S": 0.3}}, r"sum to 0.8 \(R3 0.5, S 0.3\); give shares that sum to 1"),
        ({"denoisers": {"R3": 0.7, "S": 0.7}}, r"sum to 1.4"),
        ({"denoisers": {"R3": 1.0, "S": 0.0}}, r"objective.denoisers.S.weight: .*greater than 0.*given: 0"),
        ({"denoisers": {"R3": -1.0, "S": 1.0}}, r"objective.denoisers.R3.weight"),
        ({"denoisers": {"R3": float("nan")}}, r"objective.denoisers.R3.weight"),
        ({"denoisers": {"R4": 1.0}}, r"R4 is not one of the denoisers .*R3, R8, S, X3"),
        ({"denoisers": {}}, r"objective.denoisers: .*at least 1"),
        ({"denoisers": {"R3": "most"}}, r"objective.denoisers: R3 is 'most'; expected its weight, a share like 0.5"),
        ({"denoisers": {"R3": True}}, r"objective.denoisers: R3 is True; expected its weight"),
        ({"denoisers": {"mine": {"weight": 1.0}}}, r"objective.denoisers.mine.rate is missing"),
        ({"denoisers": {"R3": {"weight": 1.0, "rat": 1}}}, r"denoisers.R3.rat: .*did you mean 'rate'"),
        ({"denoisers": {"R3": {"weight": 1.0, "rate": 2.0}}}, r"denoisers.R3: rate is 2.0"),
        ({"denoisers": {"R3": {"weight": 1.0, "mode": "NLP"}}}, r"denoisers.R3.mode: .*'NLU', 'NLG' or 'S2S'"),
        ({"denoiser": {}}, r"objective.denoiser: .*did you mean 'denoisers'"),
        ({"sentinels": 0}, r"objective.sentinels: .*given: 0"),
        ({"attention": "both"}, r"objective.attention: .*'causal' or 'prefix'"),
        ({"mode_tokens": "yes"}, r"objective.mode_tokens"),
    ],
)
def test_what_is_not_right_is_refused_with_its_key(settings, message):
    with pytest.raises(RaptrError, match=message):
        objective(**settings)
