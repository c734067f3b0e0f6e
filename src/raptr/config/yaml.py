"""YAML as raptr reads and writes it: safe, without surprises, and the same both ways.

YAML 1.1 reads dates, times of day and octal numbers into values that are written without quotes. Here dates
(``2026-01-31``) and numbers in base 60 (``1:30``) are texts, and an octal number (``0100``) is an error.
"""

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml

from raptr.errors import RaptrError

Amend = Callable[[yaml.Node], yaml.Node]
"""Changes a document's nodes before values are made of them."""


def read_yaml(text: str, source: str, amend: Amend = lambda node: node) -> Any:
    """Plain data from YAML; ``source`` names it in messages.

    Raises:
        RaptrError: not YAML, or YAML with tags, aliases, anchors of values or repeated keys.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else loader.construct_document(amend(node))
    except RaptrError:
        raise
    except yaml.YAMLError as error:
        raise RaptrError(f"{source} is not safe, plain YAML: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:  # PyYAML's constructors
        raise RaptrError(f"{source} holds a value that is not what its form says: {error!r}.") from error
    except RecursionError as error:
        raise RaptrError(f"{source} is nested too deeply to be a config.") from error


def read_value(text: str, source: str, amend: Amend = lambda node: node) -> Any:
    """Plain data from the YAML of one value, as it is typed on a command line; nothing of it is cut off.

    A value without quotes is taken as a whole: ``notes #1`` has no comment.

    Raises:
        RaptrError: as `read_yaml`; or something follows a list, a mapping or a text in quotes.

    Example:
        >>> read_value("1e-3", "x"), read_value("notes #1", "x"), read_value("[a, 2]", "x")
        (0.001, 'notes #1', ['a', 2])
    """

    def whole(node: yaml.Node) -> yaml.Node:
        if is_plain(node):
            return node if node.value == text.strip() else yaml.ScalarNode(TEXT, text.strip())
        rest = text[node.end_mark.index :].strip()
        if rest:
            raise RaptrError(f"{source}: {rest!r} would be cut off; put the whole value in quotes, or leave it out.")
        return amend(node)

    return text.strip() if text.lstrip().startswith("#") else read_yaml(text, source, whole)


def is_plain(node: yaml.Node) -> bool:
    """Return whether a node is a value without quotes and without a tag."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return False
    implicit: str = _RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
    return node.tag == implicit


def write_yaml(data: Any) -> str:
    """Plain data as YAML that `read_yaml` reads back as it was."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


TEXT = "tag:yaml.org,2002:str"
NULL = "tag:yaml.org,2002:null"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_NOT_RESOLVED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number; a repeated key, an alias and an octal number are errors."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few of them make a file of a hundred bytes as large as memory.

        Refuse anchors of values, too: without aliases they name nothing, and ``&a`` at the start of a text is lost.
        """
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark, problem = event.start_mark, ""
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not read; write the value out"
        elif isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
            problem = f"anchors (&{event.anchor}) are not read; put a text that begins with & in quotes"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: a text that looks like 1e-3 is quoted."""


def _without_base_60(tag: str, pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?!.*:){pattern.pattern}", re.VERBOSE) if tag in (_INT, _FLOAT) else pattern


_Loader.yaml_implicit_resolvers = {
    first: [(tag, _without_base_60(tag, pattern)) for tag, pattern in known if tag not in _NOT_RESOLVED]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))
_RESOLVER = _Loader("")


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    if re.match(r"[-+]?0[0-9_]", node.value):
        problem = f"{node.value} begins with a zero: write a number without it, and a text in quotes"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return int(loader.construct_yaml_int(node))


_Loader.add_constructor(_INT, _int)


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
