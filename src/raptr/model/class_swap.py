"""Swap the class of a module for a subclass of the same name, and restore it.

Nothing is wrapped and nothing is renamed: parameter names, `state_dict`, `isinstance`, and policies that match class
names work as before. What deepcopy and pickle make of a swapped module is an ordinary one, of its original class.
"""

import copyreg
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from raptr.errors import RaptrError

Methods = Callable[[Any], dict[str, Any]]
"""Function of the original class that returns the methods of the subclass, by name. Subclasses are cached by it."""

_ORIGINAL, _ATTRIBUTE = "_raptr_original", "_raptr_attribute"


def swap_class(module: nn.Module, methods: Methods, attribute: str, value: Any = None) -> None:
    """Swap a module's class for its subclass with these methods, in place.

    Args:
        module: the module.
        methods: a function defined at module level: it is called once for each class.
        attribute: name under which the methods find ``value`` in ``module.__dict__``. Copies and pickles lack it.
        value: the value of the attribute.

    Raises:
        RaptrError: the class was swapped with the same attribute before.
    """
    if attribute in module.__dict__:
        raise RaptrError(f"this {type(module).__name__} has {attribute} already; detach it first.")
    original: Any = type(module)
    swapped = _subclass(original, methods, attribute)
    module.__dict__[attribute] = value
    module.__class__ = swapped


def restore_class(module: nn.Module) -> None:
    """Give a module the class back that it had before `swap_class`, and remove the attribute."""
    attribute = vars(type(module))[_ATTRIBUTE]
    module.__class__ = original_class(module)
    del module.__dict__[attribute]


def is_restorable(module: nn.Module, attribute: str) -> bool:
    """Return whether the swap with this attribute is the module's last one: ``fully_shard`` swaps the class again."""
    return vars(type(module)).get(_ATTRIBUTE) == attribute


def original_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module had before `swap_class`, or its class if that was not swapped."""
    original: type[nn.Module] = vars(type(module)).get(_ORIGINAL, type(module))
    return original


@cache
def _subclass(original: Any, methods: Methods, attribute: str) -> Any:
    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:
        # deepcopy and pickle come here: what they make is an ordinary module.
        _, _, state, *rest = original.__reduce_ex__(self, protocol)
        state = {name: value for name, value in state.items() if name != attribute}
        return (copyreg._reconstructor, (original, object, None), state, *rest)  # type: ignore[attr-defined]

    body = {
        **methods(original),
        "__reduce_ex__": __reduce_ex__,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        _ORIGINAL: original,
        _ATTRIBUTE: attribute,
    }
    return type(original)(original.__name__, (original,), body)
