"""Try the objectives on every language model of the installed transformers, at a tiny size.

    python benchmarks/families.py                             # all classes that were not tried yet, a few minutes
    python benchmarks/families.py --only LlamaForCausalLM     # these again

For each class of the causal, masked and sequence-to-sequence models: a model of two layers and about 32 features is
made from its configuration, and `try_objective` says whether the objective means for it what it says. The answer is one
of: right; given raptr's own loss; adds an auxiliary loss; rejected, with the reason; not buildable here, with the
exception. Answers are kept in benchmarks/results/families.json; --table prints them.
"""

import argparse
import contextlib
import json
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from raptr.errors import RaptrError
from raptr.messages import first_line
from raptr.train.setup.objective_trial import try_objective

RESULTS = Path(__file__).parent / "results" / "families.json"
OBJECTIVES = {
    "causal": MODEL_FOR_CAUSAL_LM_MAPPING,
    "masked": MODEL_FOR_MASKED_LM_MAPPING,
    "denoising": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
}
LAYERS, LENGTH, MOST_PARAMETERS, SECONDS = 2, 64, 30_000_000, 20

WIDTH, HEADS, INNER, VOCABULARY, POSITIONS = 32, 4, 48, 128, 128
SIZES = {
    name: size
    for size, names in (
        (WIDTH, "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim d_embed projection_dim"),
        (WIDTH, "lru_width attention_hidden_size kv_lora_rank q_lora_rank d_inner hidden_size_per_layer_input"),
        (INNER, "intermediate_size d_ff ffn_dim n_inner ffn_hidden_size feed_forward_size hidden_dim dim_ff"),
        (INNER, "encoder_ffn_dim decoder_ffn_dim moe_intermediate_size shared_expert_intermediate_size"),
        (INNER, "ffn_intermediate_size expert_ffn_hidden_size"),
        (HEADS, "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"),
        (HEADS, "num_encoder_attention_heads num_decoder_attention_heads num_local_experts num_experts"),
        (HEADS, "n_routed_experts moe_num_experts"),
        (HEADS // 2, "num_key_value_heads num_kv_heads multi_query_group_num"),
        (HEADS // 2, "num_experts_per_tok num_experts_per_token moe_k top_k_experts"),
        (WIDTH // HEADS, "head_dim d_kv kv_channels attention_head_size qk_nope_head_dim qk_rope_head_dim"),
        (WIDTH // HEADS, "v_head_dim mamba_d_head dim_head rotary_dim"),
        (LAYERS, "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers"),
        (LAYERS, "num_decoder_layers num_encoder_layers num_block_layers"),
        (VOCABULARY, "vocab_size decoder_vocab_size text_vocab_size vocab_size_per_layer_input"),
        (POSITIONS, "max_position_embeddings n_positions max_sequence_length"),
        (1, "n_group topk_group num_expert_group"),
    )
    for name in names.split()
}
OWN: dict[str, dict[str, Any]] = {
    "reformer": {
        "axial_pos_shape": (8, 8),
        "axial_pos_embds_dim": (16, 16),
        "is_decoder": True,
        "attn_layers": ["lsh"],
    },
}
"""What an architecture cannot be made without."""


def tiny_config(kind: Any) -> Any:
    """Return a tiny configuration of this kind."""
    default = kind()
    there = default.to_dict()
    own = OWN.get(default.model_type, {})
    sized = {name: size for name, size in SIZES.items() if isinstance(there.get(name), int)}
    if "qk_rope_head_dim" in there:  # multi-head latent attention: as many keys as queries, of a size of their own
        sized.pop("head_dim", None)
        sized["num_key_value_heads"] = HEADS
    sized |= {name: size for alias, name in default.attribute_map.items() if (size := SIZES.get(alias)) is not None}
    tokens = {
        name: place if value is not None else None
        for place, (name, value) in enumerate(
            item for item in there.items() if item[0].endswith("_token_id") and not isinstance(item[1], list)
        )
    }
    depth = getattr(default, "num_hidden_layers", None)
    lists = {name: value[:LAYERS] for name, value in there.items() if isinstance(value, list) and len(value) == depth}
    nested = {
        name: tiny_config(type(part)).to_dict()
        for name in getattr(default, "sub_configs", {})
        if (part := getattr(default, name, None)) is not None
    }
    return kind(**{**sized, **lists, **tokens, **nested, **own})


class TooLong(BaseException):
    """A class takes longer than all others."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `TooLong` after so many seconds."""

    def end(*_: Any) -> None:
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(kind: Any, model: Any, objective: str) -> dict[str, str]:
    """Return the answer for a class: what came out, and why."""
    try:
        with limited(SECONDS):
            config = tiny_config(kind)
            with torch.device("meta"):
                parameters = model(config).num_parameters()
            if parameters > MOST_PARAMETERS:
                return {"answer": "not buildable", "reason": f"{parameters / 1e6:.0f} million parameters at this size"}
            torch.manual_seed(0)
            made = model(config)
    except (Exception, TooLong) as error:  # whatever a class asks for that no general rule knows
        return {"answer": "not buildable", "reason": f"{type(error).__name__}: {first_line(error)}"[:200]}
    try:
        with limited(SECONDS):
            rule = try_objective(made, objective, LENGTH)
    except RaptrError as error:
        return {"answer": "rejected", "reason": str(error)[:300]}
    except TooLong as error:
        return {"answer": "not tried", "reason": str(error)}
    except Exception as error:
        return {"answer": "FAULT", "reason": f"{type(error).__name__}: {first_line(error)}"[:300]}
    if rule.own_shift != rule.shift:
        return {"answer": "raptr's loss", "reason": rule.told}
    return {"answer": "auxiliary loss" if rule.adds else "right", "reason": rule.told}


def classes(only: Mapping[str, Any] | list[str]) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield objective, class name, configuration and class of everything that there is."""
    for objective, mapping in OBJECTIVES.items():
        seen = set[str]()
        for kind, found in mapping.items():
            for model in found if isinstance(found, tuple) else (found,):
                if model.__name__ not in seen and (not only or model.__name__ in only):
                    seen.add(model.__name__)
                    yield objective, model.__name__, kind, model


def table(results: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """Return the counts and what is not simply right, as text."""
    lines = []
    for objective, rows in results.items():
        counts = Counter(row["answer"] for row in rows.values())
        lines.append(
            f"{objective}: {len(rows)} classes; " + ", ".join(f"{n} {what}" for what, n in counts.most_common())
        )
        lines += [
            f"  {row['answer']:14} {name}: {row['reason']}"
            for name, row in sorted(rows.items())
            if row["answer"] != "right"
        ]
    return "\n".join(lines)


def main() -> int:
    """Try, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of classes, tried again")
    parser.add_argument("--table", action="store_true", help="print what is kept, and try nothing")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    kept: dict[str, Any] = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    if kept.get("transformers") != transformers.__version__:
        kept = {"transformers": transformers.__version__, "torch": torch.__version__, "results": {}}
    for objective, name, kind, model in () if args.table else classes(args.only):
        rows = kept["results"].setdefault(objective, {})
        if name not in rows or name in args.only:
            rows[name] = tried(kind, model, objective)
            print(f"{objective:10}{name:45}{rows[name]['answer']:16}{rows[name]['reason'][:120]}", flush=True)
            args.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(table(kept["results"]))
    return int(any(row["answer"] == "FAULT" for rows in kept["results"].values() for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
