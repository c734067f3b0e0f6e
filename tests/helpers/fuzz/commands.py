"""Command lines and configs as nobody should write them, and some as everybody does.

Commands that could train or tokenize much end with `GUARD`, which names text that is not there: they are refused at
the latest when the data is looked for.
"""

import copy
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from helpers.runs import TINY
from raptr.config.methods import SETTINGS
from raptr.config.schema import RunConfig

GUARD = ("data.source=missing.txt", "data.source=missing.txt")
"""Twice, since an option that lacks its value takes the first for it."""

Arguments = st.SearchStrategy[list[str]]

_HUGE = "9" * 400
_LONGER = "7" * 5000
"""More digits than Python reads as a number without being asked twice."""

NUMBERS = (
    *("0", "1", "2", "3", "4", "7", "12", "100", "1000", "-1", "-12", "1.5", "0.5", ".5", "1e-3", "1e3", "5e-324"),
    *("1000000000", "2147483648", "9223372036854775808", "1e308", "1e309", "-1e400", _HUGE, f"-{_HUGE}", _LONGER),
    *(
        "nan",
        ".nan",
        "inf",
        ".inf",
        "-.inf",
        "0x10",
        f"0x{'f' * 5000}",
        "1_000",
        "٣",
        "１２",
        "+3",
        " 3 ",
        "1,5",
        "10%",
        "-5%",
        "1e400%",
    ),
)
WORDS = (
    *("", " ", "-", "--", "=", ",", ".", ":", "%", "true", "null", "~", "none", "equal", "proportional", "weird"),
    *("[]", "{}", "[1, 2]", "[0, -1]", "{a: 1}", "[[0], [1]]", "[", "{", "'", '"', "*a", "&a 1", "!!int x", "!!set {}"),
    *(
        "x" * 3000,
        "a b " * 2000,
        "lines\nof\n" * 400,
        "\x1b[31mred",
        "\\",
        "[bold]",
        "[/]",
        "é",
        "\udcff",
        "🦖",
        "\u202e",
    ),
    *('"\\0"', '"\\ud800"', "2020-01-31", "1:30", "0o17", "<<", "? x", "- x", "@", "`", "%TAG", "|", ">", "#", "yes"),
)
SIZES = ("1", "2", "3", "4", "6", "12", "13", "0", "50%", "66.7%", "100%", "0%", "101%", "1e2", "-3", "999999", "x", "")
SHAPES = (
    *("6-8-10-12", "2-3-4", "50%-75%-100%", "100%", "3-12", "-".join(["12"] * 500), "12" * 900, "-" * 900),
    *("12-6", "4", "6.5-12", "50-100%", "6--12", "0.000001%-100%"),
)
METHODS = (*SETTINGS, "stacking", "RAPTR", "", "all", "x" * 3000)

numbers = st.sampled_from(NUMBERS)
words = st.sampled_from(WORDS)
texts = st.text(alphabet=st.characters(exclude_characters="\0", max_codepoint=0x2FFF), max_size=12)
values = st.one_of(numbers, numbers, words, st.sampled_from(SHAPES), texts)
schedules = st.one_of(st.sampled_from(SHAPES), st.lists(st.sampled_from(SIZES), min_size=1, max_size=6).map("-".join))

_LAYERS = ("1", "2", "4", "12", "13", "48", "100000", "100001", "1000000000", _HUGE, _LONGER, "0", "-4", "x", "")
_STEPS = ("1", "3", "4", "10", "1000", "1000000000000000", "1000000000000001", _HUGE, _LONGER, "0", "-1", "1e3", "")


def options(**known: st.SearchStrategy[str]) -> Arguments:
    """Any of these options with a value each, in any order."""
    pairs = [value.map(lambda text, name=name: [f"--{name}", text]) for name, value in known.items()]
    return st.lists(st.one_of(pairs), max_size=4).map(lambda found: list(chain.from_iterable(found)))


def _settings(method: str) -> Arguments:
    keys = [*SETTINGS[method].model_fields, "alphas"] if method in SETTINGS else ["rate"]
    setting = st.builds("{}={}".format, st.sampled_from(keys), st.one_of(values, schedules))
    return st.lists(setting, max_size=2)


def schedule_commands() -> Arguments:
    """``raptr plan --layers``: schedules, lengths, warm-ups and settings of every method."""
    given = options(
        layers=st.sampled_from(_LAYERS),
        steps=st.sampled_from(_STEPS),
        schedule=schedules,
        lengths=st.one_of(st.sampled_from(("equal", "proportional")), schedules, values),
        warmup=values,
        fixed=st.one_of(
            st.lists(st.sampled_from(("0", "-1", "3", "99", _HUGE, "x")), max_size=3).map(",".join), values
        ),
        sampler=st.sampled_from(("fixed", "bernoulli", "", "x")),
    )
    of_method = st.sampled_from(METHODS).flatmap(
        lambda name: _settings(name).map(lambda found: ["--method", name, *found])
    )
    layers = st.sampled_from((*(["4", "12"] * 6), *_LAYERS))
    given = st.one_of(given, st.just([]), st.sampled_from(_STEPS).map(lambda steps: ["--steps", steps]))
    return st.tuples(layers, given, st.one_of(st.just([]), of_method)).map(
        lambda parts: ["plan", "--layers", parts[0], *parts[1], *parts[2]]
    )


def _keys() -> list[str]:
    """Every key of a config, and some that are none."""
    found: list[str] = []
    for name, field in RunConfig.model_fields.items():
        found.append(name)
        inner = getattr(field.annotation, "model_fields", {})
        found += [f"{name}.{key}" for key in inner]
    found += [f"objective.{key}" for key in ("name", "rate", "whole_words", "denoisers", "denoisers.R3", "sentinels")]
    found += [f"objective.denoisers.own.{key}" for key in ("rate", "span", "weight")]
    found += [f"methods.{key}.{name}" for key, kind in SETTINGS.items() for name in kind.model_fields]
    found += [f"training.{key}" for key in _TRAINING] + [f"model.config.{key}" for key in _MODEL]
    found += [f"data.sources.{name}.{key}" for name in ("a", "b") for key in ("path", "dataset", "filter", "max_bytes")]
    return [*found, "data.sources.a", "modle", "training.", ".", "a.b.c", "x" * 2000, "name.first", "methods.x.method"]


_TRAINING = (
    *("max_steps", "num_train_epochs", "learning_rate", "per_device_train_batch_size", "warmup_steps", "optim"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "adam_beta1", "bf16", "fsdp", "report_to", "gradient_checkpointing"),
    *("gradient_accumulation_steps", "max_grad_norm", "dataloader_num_workers", "torch_compile", "peak_flops", "seed"),
)
_MODEL = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    *("vocab_size", "max_position_embeddings", "hidden_act", "rope_parameters", "tie_word_embeddings", "pad_token_id"),
)

_SLOW = tuple(f"model.config.num_hidden_layers={many}" for many in ("100", "1000", "1_000"))
"""As many layers as a model may have: they are made, which takes its time."""

keys = st.sampled_from(_keys())
mixtures = st.lists(
    st.sampled_from(("a:1", "b:1", "a:0", "b:0", "a:1e308", "b:1e308", f"a:{_HUGE}", "a:", ":1", "c:1", "a")),
    min_size=1,
    max_size=3,
).map(",".join)
weights = st.lists(
    st.builds("{}: {}".format, st.sampled_from(("R3", "S", "X8", "own")), st.one_of(numbers, words)), max_size=3
).map(lambda found: f"objective.denoisers={{{', '.join(found)}}}")
overrides = st.one_of(
    *[st.builds("{}={}".format, keys, values)] * 3,
    *[st.builds("{}={}".format, keys, numbers)] * 3,
    *[mixtures.map("data.mixture={}".format)] * 2,
    *[weights] * 2,
    values,
)
changes = st.one_of(*[overrides.map(lambda one: [one])] * 4, st.lists(overrides, max_size=4))
"""Mostly one: of several, the first that cannot be is what is refused."""


def override_commands() -> Arguments:
    """``raptr train``, ``compare`` and ``data`` with changed configs."""
    compared = options(
        methods=st.one_of(st.sampled_from(METHODS), values),
        seeds=values,
        budget=st.one_of(st.sampled_from(("flops", "steps", "tokens", "money")), values),
        sweep=st.one_of(st.builds("training.{}={}".format, st.sampled_from(_TRAINING), mixtures), values),
        only=values,
        **{"tuning-seeds": values, "max-minutes": values},
    )
    verb = st.one_of(
        *[st.just([name]) for name in ("train", "data", "compare", "train", "data", "compare")],
        options(**{"max-minutes": values, "allow-changes": values}).map(lambda found: ["train", *found]),
        options(workers=values).map(lambda found: ["data", *found]),
        compared.map(lambda found: ["compare", *found]),
    )
    sources = st.sampled_from(
        ([], [], [], ["data.source=null", "data.sources={a: {path: missing.txt}, b: {path: missing.txt}}"])
    )
    return st.tuples(verb, sources, changes).map(
        lambda parts: [*parts[0], "--", "tiny.yaml", *parts[2], *(parts[1] or GUARD)]
    )


def model_commands() -> Arguments:
    """``raptr plan`` of configs whose model or training is changed: the model is made, without memory."""
    key = st.one_of(
        st.sampled_from(_MODEL).map("model.config.{}".format), st.sampled_from(_TRAINING).map("training.{}".format)
    )
    changed = st.builds("{}={}".format, key, st.one_of(numbers, values)).filter(lambda text: text not in _SLOW)
    return st.lists(changed, min_size=1, max_size=2).map(lambda found: ["plan", "--", "tiny.yaml", *found])


_OPTIONS = (
    *("--help", "--version", "--layers", "--method", "--schedule", "--steps", "--output", "-o", "--cache", "--strict"),
    *(
        "--json",
        "--length",
        "--seeds",
        "--budget",
        "--only",
        "--sweep",
        "--max-minutes",
        "--allow-changes",
        "--workers",
    ),
    *("--", "-", "-x", "--colour", "--layers=12", "--layers=", "--no-strict", f"--{'y' * 3000}", "--seeds=0"),
)
_VERBS = ("plan", "methods", "presets", "inspect", "data", "train", "compare", "report", "dance", "PLAN", "")
_NAMES = ("tiny.yaml", "missing.yaml", "missing", ".", "/dev/null/x", "tiny.yaml/x", "text.txt", "midas", "tiny-bert")


def any_commands() -> Arguments:
    """Verbs with anything behind them."""
    token = st.one_of(st.sampled_from(_OPTIONS), st.sampled_from(_NAMES), values)
    return st.tuples(st.sampled_from(_VERBS), st.lists(token, max_size=4)).map(_guarded)


def _guarded(parts: tuple[str, list[str]]) -> list[str]:
    verb, given = parts
    return [verb, *given, *(GUARD if verb in ("data", "train", "compare") else ())]


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 13), st.floats(), st.sampled_from([*WORDS[:30], *SHAPES[:4], 10**400])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(_keys()).map(lambda key: key[-12:]), inner, max_size=3),
    ),
    max_leaves=5,
)


@st.composite
def config_files(draw: st.DrawFn) -> bytes:
    """The text of a config: the tiny one with other values, or as an editor or a disk left it behind."""
    data: dict[str, Any] = copy.deepcopy(TINY)
    for _ in range(draw(st.integers(0, 2))):
        path = draw(keys).split(".")
        section: Any = data
        for key in path[:-1]:
            section = section.setdefault(key, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict):
            section[path[-1]] = draw(plain)
    content = yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogateescape")
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content)))
        change = draw(st.sampled_from(("cut", "insert", "drop", "double")))
        if change == "cut":
            content = content[:place]
        elif change == "insert":
            piece = draw(st.sampled_from(_PIECES))
            content = content[:place] + piece + content[place:]
        elif change == "drop":
            content = content[:place] + content[place + draw(st.integers(1, 40)) :]
        else:
            content = content + content[place:]
    return content


_PIECES = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\t",
        b": ",
        b"- ",
        b"{",
        b"[" * 3000,
        b"&a [*a]",
        b"*a",
        b"!!python/name:os.system ",
    ),
    *(
        b"---\n",
        b"...\n",
        b"'",
        b'"',
        b"#",
        b"\r",
        b"\xc2\x85",
        b"\xf0\x9f\xa6\x96",
        b"<<: ",
        b"? ",
        b"9" * 5000,
        b"!!binary ",
    ),
)


def command_of(made: list[str] | bytes, place: Path) -> list[str]:
    """The command of what one of the strategies here made; a config is written to a place first."""
    if isinstance(made, list):
        return made
    (place / "made.yaml").write_bytes(made)
    return ["train", "made.yaml", *GUARD]
