"""YAML as raptr reads and writes it: safe, without surprises, and the same both ways."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from raptr.errors import RaptrError


def read_yaml(text: str, source: str) -> Any:
    """Plain data from YAML; ``source`` names it in messages.

    Raises:
        RaptrError: not YAML, or YAML with tags, aliases or repeated keys.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RaptrError(f"{source} is not safe, plain YAML: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:  # PyYAML's constructors
        raise RaptrError(f"{source} holds a value that is not what its form says: {error!r}.") from error
    except RecursionError as error:
        raise RaptrError(f"{source} is nested too deeply to be a config.") from error


def write_yaml(data: Any) -> str:
    """Plain data as YAML that `read_yaml` reads back as it was."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number; a repeated key and an alias are errors."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few of them make a file of a hundred bytes as large as memory."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read; write the value out", mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: a text that looks like 1e-3 is quoted."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
