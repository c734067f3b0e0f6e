"""From a file or a preset, with overrides, to a validated configuration, and back."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from raptr.config.literal import read_setting, read_settings
from raptr.config.methods import SETTINGS
from raptr.config.schema import RunConfig
from raptr.config.validation_errors import explained
from raptr.config.yaml import write_yaml
from raptr.errors import RaptrError
from raptr.messages import did_you_mean
from raptr.plan import Method


def load(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file, or a preset by its name, and apply overrides.

    Args:
        source: the path of a YAML file, or a preset's name.
        overrides: ``key=value`` texts; dots lead into sections, values are YAML
            (``training.learning_rate=1e-3``). Where a setting is text, its value is taken literally.

    Raises:
        RaptrError: no such file or preset, not safe YAML, or keys or values that are not valid.
    """
    data = _read(source)
    data = {} if data is None and overrides else data
    for override in overrides:
        _apply(data, override)
    return parse(data, str(source))


def parse(data: Any, source: str) -> RunConfig:
    """Validate a config given as plain data; ``source`` names it in messages."""
    if not isinstance(data, dict):
        held = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise RaptrError(f"{source} {held}; expected sections such as 'model:' and 'training:'.")
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        lines = explained(error.errors())
        more = [f"... and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise RaptrError(f"{source} is not valid:\n  " + "\n  ".join([*lines[:20], *more])) from error


def with_settings(method: str, settings: Mapping[str, Any], overrides: Sequence[str] = ()) -> Method:
    """A method's spec from its settings, without a run.

    Args:
        method: its key.
        settings: values of its settings; None stands for their defaults.
        overrides: ``key=value`` texts, on top.

    Raises:
        RaptrError: an unknown method, or settings that it has not or that cannot be right.
    """
    if method not in SETTINGS:
        hint = did_you_mean(method, SETTINGS) or f"there are: {', '.join(SETTINGS)}."
        raise RaptrError(f"method {method!r} is not known; {hint}")
    if SETTINGS[method].own_model:
        raise RaptrError(
            f"{method!r} is a model with fewer layers, not a plan for this one; "
            f"`raptr compare --methods full,{method}` trains it beside others, and "
            f"`raptr plan CONFIG method={method}` plans it for the model of a config."
        )
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    for override in overrides:
        _apply(given, override, within=("methods", method))
    entry = {"name": "plan", "method": method, **({"methods": {method: given}} if given else {})}
    return parse(entry, "the method").build_method()


def dump(config: BaseModel) -> str:
    """A config as YAML, every value written out."""
    return write_yaml(config.model_dump(mode="json"))


def presets() -> list[str]:
    """The names of the presets."""
    folder = resources.files("raptr") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _read(source: str | Path) -> Any:
    path = Path(source)
    if not str(source):
        raise RaptrError(f"config '' has no name; give a .yaml file or one of: {', '.join(presets())}.")
    if path.suffix in (".yaml", ".yml") or _is_there(path, folder=str(source) not in presets()):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RaptrError(f"config {source} cannot be read: {error}.") from error
    elif str(source) in presets():
        text = (resources.files("raptr") / "presets" / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise RaptrError(
            f"config {str(source)!r} is neither a file nor a preset; "
            f"give a .yaml file or one of: {', '.join(presets())}."
        )
    return read_settings(text, str(source))


def _is_there(path: Path, folder: bool) -> bool:
    try:
        return path.exists() if folder else path.is_file()
    except OSError:  # e.g. a name that is too long
        return False


def _apply(data: Any, override: str, within: Sequence[str] = ()) -> None:
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise RaptrError(f"override {override!r} is not of the form key=value, e.g. training.max_steps=100.")
    for depth, key in enumerate(keys[:-1]):
        if not isinstance(data, dict):
            raise RaptrError(f"override {override!r}: {'.'.join(keys[:depth])} is a value and has no keys.")
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
    if not isinstance(data, dict):
        raise RaptrError(f"override {override!r}: {'.'.join(keys[:-1])} is a value and has no keys.")
    data[keys[-1]] = read_setting((*within, *keys), text, f"the value of override {override!r}")
