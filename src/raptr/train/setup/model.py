"""From a config's ``model`` section to a model: from scratch, from a configuration, or from weights."""

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from raptr.config import RunConfig, load, presets
from raptr.config.schema import ModelConfig
from raptr.errors import RaptrError
from raptr.messages import did_you_mean, first_line
from raptr.model import find_stacks
from raptr.plan.shape import MOST_LAYERS

_AUTO_CLASSES = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "denoising": AutoModelForCausalLM}

_HEADS: dict[Any, tuple[Any, str, str]] = {
    AutoModelForCausalLM: (MODEL_FOR_CAUSAL_LM_MAPPING, "causal language model", "llama, gpt2, qwen3 or mixtral"),
    AutoModelForMaskedLM: (
        MODEL_FOR_MASKED_LM_MAPPING,
        "masked-language model",
        "bert, roberta, roberta-prelayernorm, modernbert, electra or distilbert",
    ),
    AutoModelForSeq2SeqLM: (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, "sequence-to-sequence model", "t5 or bart"),
}
"""Which configurations transformers has such a model of, its name, and some that are tested (docs/families.md)."""


SPECIAL_TOKENS = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")
"""Those of a tokenizer that a model's configuration may name, as ``pad_token_id`` and so on."""

_FORCED = ("forced_bos_token_id", "forced_eos_token_id")
"""What generation writes without asking the model; no tokenizer has such a role."""

_IN_TEXT = ("bos", "eos", "cls", "sep", "unk")
"""Roles whose tokens stand in text: they separate documents, or stand for what the tokenizer does not know."""

_POSITIONS_AFTER_PAD = ("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod")
"""Models that count positions from the pad token's id on: the first pad_token_id + 1 are not used."""


def build_model_config(
    config: RunConfig, vocabulary: int, special_tokens: Mapping[str, int | None] = MappingProxyType({})
) -> Any:
    """The transformers configuration of the run's model.

    Args:
        config: the run.
        vocabulary: how many tokens the tokenizer has; the model's ``vocab_size`` unless that is given,
            or comes with the weights.
        special_tokens: the tokenizer's ids by name ("pad_token_id"), the model's on the same terms.

    Raises:
        RaptrError: an unknown architecture, name or key, values that do not go together, a vocabulary
            smaller than the tokenizer's, or positions for fewer tokens than a sequence has.
    """
    model = config.model
    if model.from_pretrained is not None:
        if isinstance(config.data.tokenizer, int):
            raise RaptrError(
                f"model.from_pretrained {model.from_pretrained!r} knows the tokens of its own tokenizer, but "
                f"data.tokenizer is {config.data.tokenizer}, a size to train a new one of; "
                f"give data.tokenizer={model.from_pretrained}, or the tokenizer that the weights were trained with."
            )
        result = _changed(_existing(model.from_pretrained, "from_pretrained"), model.config)
    elif model.from_config is not None:
        base, given = _preset_or_existing(model)
        result = _changed(base, {"vocab_size": vocabulary, **_known(special_tokens, base), **given})
    else:
        result = _of_architecture(str(model.architecture), vocabulary, special_tokens, model.config)
    if is_encoder_decoder(result) and "decoder_start_token_id" not in model.config:
        own = None if model.from_pretrained is None else getattr(result, "decoder_start_token_id", None)
        result.decoder_start_token_id = result.pad_token_id if own is None else own  # as in T5
    if model.from_pretrained is None and special_tokens:
        _take_roles(result, special_tokens, model.config)
    if "pad_token_id" not in model.config:
        _leave_pad_trainable(result, special_tokens)
    result.dtype = torch.float32  # weights are trained in float32; `training.bf16` is mixed precision
    if result.vocab_size < vocabulary:
        raise RaptrError(
            f"the model's vocab_size is {result.vocab_size}, but the tokenizer has {vocabulary} tokens; "
            + ("give the tokenizer of these weights." if model.from_pretrained else f"give at least {vocabulary}, ")
            + ("" if model.from_pretrained else "or leave model.config.vocab_size out.")
        )
    positions, length = positions_of(result), config.data.sequence_length
    if positions is not None and positions < length:
        unused = _unused_positions(result)
        raise RaptrError(
            f"data.sequence_length is {length}, but the model has positions for {positions} tokens; "
            "shorten the sequences or raise model.config.max_position_embeddings"
            + (f" to {length + unused} (a {result.model_type} leaves the first {unused} unused)." if unused else ".")
        )
    return result


def build_model(config: RunConfig, model_config: Any, device: str | None = None) -> Any:
    """The model at the beginning of a run: with the weights of ``from_pretrained``, or freshly initialised.

    The same seed gives the same weights, whatever the method.

    Args:
        config: the run.
        model_config: of `build_model_config`.
        device: "meta" for a model without memory, to count its FLOPs.

    Raises:
        RaptrError: the architecture has no head for the objective, its configuration does not make a
            model, or the weights are not those of a model of this configuration.
    """
    transformers.set_seed(config.seed)
    make, name = _auto_class(config, model_config), config.model.from_pretrained
    known, kind, tested = _HEADS[make]
    if type(model_config) not in known:
        raise RaptrError(
            f"objective.name is {config.objective.name!r}, but {model_config.model_type} has no {kind} in "
            f"transformers; use {tested}, or another objective."
        )
    try:
        if name is not None and device is None:
            loaded, info = make.from_pretrained(
                name,
                config=copy.deepcopy(model_config),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                trust_remote_code=False,
            )
            _check_loaded(loaded, info, name)
            return loaded
        with torch.device(device or "cpu"):
            return make.from_config(copy.deepcopy(model_config))
    except RaptrError:
        raise
    except Exception as error:
        raise RaptrError(
            f"no {model_config.model_type} model for the {config.objective.name} objective "
            f"can be made from {f'the weights of {name!r}' if name else 'model.config'}: {error}"
        ) from error


def positions_of(model_config: Any) -> int | None:
    """Return how many tokens a model has positions for; None if there is no limit.

    Raises:
        RaptrError: the model counts positions from the pad token's id on, and has none.
    """
    positions = getattr(model_config, "max_position_embeddings", None)
    unused = _unused_positions(model_config)
    return None if positions is None else int(positions) - unused


def _known(special_tokens: Mapping[str, int | None], model_config: Any) -> dict[str, int | None]:
    there = model_config.to_dict()
    return {name: value for name, value in special_tokens.items() if name in there}


def _take_roles(model_config: Any, special_tokens: Mapping[str, int | None], given: Mapping[str, Any]) -> None:
    """Give every configuration in a fresh one the ids that the tokenizer has for its roles, and none for the others.

    What an architecture has by default are ids of the tokenizer that it was published with.
    """
    parts = [model_config, *(getattr(model_config, name, None) for name in getattr(model_config, "sub_configs", {}))]
    for part in parts:
        there = {} if part is None else part.to_dict()
        for name, value in {**special_tokens, **dict.fromkeys(_FORCED)}.items():
            if name in there and there[name] != value and (part is not model_config or name not in given):
                setattr(part, name, value)


def _leave_pad_trainable(model_config: Any, special_tokens: Mapping[str, int | None]) -> None:
    """Let a model have no pad token where the tokenizer's stands in text: its embedding would be 0 for good.

    torch.nn.Embedding(padding_idx=...) never updates that row, but the token separates documents.

    Raises:
        RaptrError: the model counts positions from the pad token's id on, so it needs one of its own.
    """
    pad, model_type = getattr(model_config, "pad_token_id", None), getattr(model_config, "model_type", "")
    in_text = {special_tokens.get(f"{role}_token_id") for role in _IN_TEXT}
    if pad is None or pad not in in_text:
        return
    if model_type in _POSITIONS_AFTER_PAD:
        raise RaptrError(
            f"the tokenizer's pad token (id {pad}) also stands in text, and a {model_type} counts positions from the "
            "pad token's id on; give a tokenizer with a pad token of its own, model.config.pad_token_id, or "
            "another architecture."
        )
    model_config.pad_token_id = None


def _unused_positions(model_config: Any) -> int:
    if model_config.model_type not in _POSITIONS_AFTER_PAD:
        return 0
    if model_config.pad_token_id is None:
        raise RaptrError(
            f"a {model_config.model_type} counts positions from the pad token's id on, but the tokenizer has no pad "
            "token; give model.config.pad_token_id, the id of a token that no text becomes, or another architecture."
        )
    return int(model_config.pad_token_id) + 1


def is_encoder_decoder(model_config: Any) -> bool:
    """Whether a configuration is that of a model with an encoder and a decoder."""
    return bool(getattr(model_config, "is_encoder_decoder", False))


def _auto_class(config: RunConfig, model_config: Any) -> Any:
    if config.objective.name == "denoising" and is_encoder_decoder(model_config):
        return AutoModelForSeq2SeqLM
    return _AUTO_CLASSES[config.objective.name]


def _of_architecture(
    architecture: str, vocabulary: int, special_tokens: Mapping[str, int | None], given: Mapping[str, Any]
) -> Any:
    if architecture not in CONFIG_MAPPING:
        raise RaptrError(
            f"model.architecture {architecture!r} is not a model type of transformers {transformers.__version__}; "
            + (did_you_mean(architecture, CONFIG_MAPPING, quoted=False) or "expected e.g. llama, gpt2 or bert.")
        )
    known = CONFIG_MAPPING[architecture]
    _check_keys(given, known(), architecture)
    try:
        return AutoConfig.for_model(
            architecture, **{"vocab_size": vocabulary, **_known(special_tokens, known()), **given}
        )
    except Exception as error:
        raise RaptrError(f"model.config is not a valid configuration of {architecture}: {error}") from error


def _preset_or_existing(model: ModelConfig) -> tuple[Any, dict[str, Any]]:
    """The configuration that ``from_config`` names, and what is changed in it."""
    name = str(model.from_config)
    if name not in presets():
        return _existing(name, "from_config"), model.config
    preset = load(name).model
    given = {**preset.config, **model.config}
    if preset.from_config is not None:
        return _preset_or_existing(preset.model_copy(update={"config": given}))
    if preset.from_pretrained is not None:
        return _existing(preset.from_pretrained, "from_config"), given
    return CONFIG_MAPPING[str(preset.architecture)](), given


def _existing(name: str, key: str) -> Any:
    try:
        found = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever transformers, the Hub's client or a broken file raise
        also = f", or a preset ({', '.join(presets())})" if key == "from_config" else ""
        raise RaptrError(
            f"model.{key} {name!r} cannot be read: {first_line(error)} Expected is a folder with a config.json, "
            f"or a name on the Hugging Face Hub{also}."
        ) from error
    check_depth(found.to_dict(), f"the configuration of {name!r}")
    return found


def _changed(base: Any, given: Mapping[str, Any]) -> Any:
    """A configuration with some values changed; what was derived from the old ones is derived anew."""
    kind = type(base)
    _check_keys(given, base, base.model_type)
    aliases = base.attribute_map
    changes = {aliases.get(key, key): value for key, value in given.items()}
    values = base.to_dict()
    for key in _derived(base, changes):
        values.pop(key, None)
    for key in ("model_type", "transformers_version", "architectures", "dtype", "_name_or_path", "auto_map"):
        values.pop(key, None)
    try:
        return kind(**{**values, **changes})
    except Exception as error:
        raise RaptrError(f"model.config does not fit this {base.model_type}: {error}") from error


def _derived(base: Any, changes: Mapping[str, Any]) -> set[str]:
    """The keys whose values follow from what is changed: per-layer lists from depth, head size from width."""
    aliases = base.attribute_map
    derived = set()
    if aliases.get("num_hidden_layers", "num_hidden_layers") in changes:
        depth = base.num_hidden_layers
        derived |= {key for key, value in base.to_dict().items() if isinstance(value, list) and len(value) == depth}
    width, heads = (getattr(base, name, None) for name in ("hidden_size", "num_attention_heads"))
    resized = {aliases.get(name, name) for name in ("hidden_size", "num_attention_heads")} & changes.keys()
    if resized and width and heads and getattr(base, "head_dim", None) == width // heads:
        derived.add("head_dim")
    return derived - changes.keys()


def _check_keys(given: Mapping[str, Any], known: Any, architecture: str) -> None:
    expected = {*known.to_dict(), *known.attribute_map}
    for key in given:
        if key not in expected:
            raise RaptrError(
                f"model.config.{key} is not a setting of {architecture}; "
                + (did_you_mean(key, expected, quoted=False) or "see its configuration in transformers.")
            )
    check_depth(given, "model.config")


def check_depth(values: Mapping[str, Any], source: str) -> None:
    """Refuse a depth that no model has: making its layers, even without memory, would not end.

    Raises:
        RaptrError: a number of layers above `raptr.plan.shape.MOST_LAYERS`.
    """
    for key, value in values.items():
        if key.endswith(("layer", "layers")) and isinstance(value, int) and value > MOST_LAYERS:
            raise RaptrError(f"{source}: {key} is above {MOST_LAYERS:,}; give as many as a model can have.")


def _check_loaded(model: Any, info: Mapping[str, Any], name: str) -> None:
    """Refuse weights of another depth or width; a head of another kind begins fresh."""
    stacks = tuple(f"{stack.name}." for stack in find_stacks(model))
    layers = {
        what: sorted(key for key in map(str, info[kind]) if key.startswith(stacks))
        for kind, what in (("missing_keys", "lack"), ("unexpected_keys", "have, but the model has not,"))
    }
    layers["have in another size"] = sorted(
        str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]
    )
    for what, keys in layers.items():
        if keys:
            raise RaptrError(
                f"the weights of {name!r} {what} {keys[0]} ({len(keys)} such in all); with from_pretrained, "
                "model.config cannot change depth or width: use from_config for another shape with fresh weights."
            )
