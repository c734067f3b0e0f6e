"""The sweep over the classes of transformers: what is kept of it is what is found again, and what the table says."""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers

from raptr.train.setup.objective_trial import LossRule, try_objective, unbalanced

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import families  # noqa: E402

sys.path.remove(str(BENCHMARKS))

pytestmark = pytest.mark.slow

AGAIN = {
    "causal": "BartForCausalLM BertLMHeadModel DeepseekV3ForCausalLM LlamaForCausalLM XLNetLMHeadModel",
    "masked": "DebertaV2ForMaskedLM ModernBertForMaskedLM RobertaForMaskedLM",
    "denoising": "BartForConditionalGeneration T5ForConditionalGeneration ProphetNetForConditionalGeneration",
}
ROUTED = [
    *("Mixtral", "Qwen2Moe", "Qwen3Moe", "Olmoe", "GraniteMoe", "JetMoe"),
    *("Jamba", "GptOss", "Phimoe", "FlexOlmo", "MiniMaxM2", "Ernie4_5_Moe"),
]


@pytest.mark.parametrize(("objective", "name"), [(each, name) for each in AGAIN for name in AGAIN[each].split()])
def test_what_is_kept_is_found_again(objective: str, name: str) -> None:
    kept = json.loads(families.RESULTS.read_text(encoding="utf-8"))
    ((_, _, kind, model),) = [row for row in families.classes([name]) if row[0] == objective]
    if kept["transformers"] != transformers.__version__:
        pytest.skip(f"kept of transformers {kept['transformers']}")
    assert families.tried(kind, model, objective) == kept["results"][objective][name]


def test_every_class_of_the_pinned_version_was_tried() -> None:
    kept = json.loads(families.RESULTS.read_text(encoding="utf-8"))
    if kept["transformers"] != transformers.__version__:
        pytest.skip(f"kept of transformers {kept['transformers']}")
    found = {(objective, name) for objective, name, _, _ in families.classes([])}
    assert found == {(objective, name) for objective, rows in kept["results"].items() for name in rows}
    answers = {row["answer"] for rows in kept["results"].values() for row in rows.values()}
    assert answers <= {"right", "raptr's loss", "auxiliary loss", "rejected", "not buildable", "not tried"}
    assert "causal: 181 classes" in families.table(kept["results"])


@pytest.mark.parametrize("name", ROUTED)
def test_a_routers_loss_is_found_and_its_absence_told(name: str) -> None:
    if not hasattr(transformers, f"{name}ForCausalLM"):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    config = families.tiny_config(getattr(transformers, f"{name}Config"))
    for routed in (True, False):
        config.output_router_logits = routed
        torch.manual_seed(0)
        rule = try_objective(getattr(transformers, f"{name}ForCausalLM")(config), "causal", 64)
        assert rule == LossRule(shift=True, own_shift=True, adds=routed)
        assert bool(unbalanced(config, rule)) != routed
