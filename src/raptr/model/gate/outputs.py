"""What a block returns, and what a skipped one returns in its place.

A block returns hidden states, alone or at the head of a tuple. Each further part is None, an argument that is
passed on (T5's position bias), or made by the block. A skipped block can supply the first two. The
pattern is learned from executed blocks, never from class names.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from raptr.errors import RaptrError

Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """Where an argument of a block is found in a call: by name, or at a position."""

    name: str
    position: int | None = None
    default: Any = None

    def of(self, args: Arguments, kwargs: Keywords) -> Any:
        """Its value in a call."""
        if self.name in kwargs:
            return kwargs[self.name]
        return args[self.position] if self.position is not None and self.position < len(args) else self.default

    def replaced(self, value: Any, args: Arguments, kwargs: Keywords) -> tuple[Arguments, Keywords]:
        """The call with another value of it, which was given."""
        if self.name in kwargs:
            return args, {**kwargs, self.name: value}
        assert self.position is not None
        return (*args[: self.position], value, *args[self.position + 1 :]), kwargs


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a block, and which of them holds the hidden states."""

    hidden: Argument
    arguments: tuple[Argument, ...]

    @classmethod
    def of(cls, block: nn.Module) -> "Signature":
        """Hidden states are the argument named ``hidden_states``, or else the first one.

        Raises:
            RaptrError: the block's forward takes nothing.
        """
        found = []
        for position, parameter in enumerate(inspect.signature(block.forward).parameters.values()):
            if parameter.kind is not parameter.VAR_KEYWORD:
                by_position = parameter.kind is not parameter.KEYWORD_ONLY
                default = None if parameter.default is parameter.empty else parameter.default
                found.append(Argument(parameter.name, position if by_position else None, default))
        if not found:
            raise RaptrError(
                f"the forward of {type(block).__name__} takes no argument; "
                "a layer takes hidden states (its first argument, or one named hidden_states) and returns them."
            )
        hidden = next((argument for argument in found if argument.name == "hidden_states"), found[0])
        return cls(hidden, tuple(found))

    def states(self, stack: str, args: Arguments, kwargs: Keywords) -> torch.Tensor:
        """The hidden states of a call.

        Raises:
            RaptrError: there are none.
        """
        hidden = self.hidden.of(args, kwargs)
        if not isinstance(hidden, torch.Tensor):
            raise RaptrError(
                f"a layer of {stack!r} was called without a tensor as its {self.hidden.name!r}; "
                "a layer takes hidden states as its first argument, or as the one named hidden_states."
            )
        return hidden

    def passed(self, value: Any, args: Arguments, kwargs: Keywords) -> Argument | None:
        """The argument that this very object is, in a call."""
        for argument in self.arguments:
            if argument.of(args, kwargs) is value:
                return argument
        return next((Argument(name) for name, given in kwargs.items() if given is value), None)


Part = Argument | Literal["made"] | None


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a block returned.

    Attributes:
        rest: the parts after the hidden states; None if they came alone, not in a tuple.
    """

    rest: tuple[Part, ...] | None

    @classmethod
    def of(cls, output: Any, signature: Signature, args: Arguments, kwargs: Keywords) -> "Pattern":
        """The pattern of an executed block's return value.

        Raises:
            RaptrError: it does not begin with hidden states.
        """
        if isinstance(output, torch.Tensor):
            return BARE
        if not (isinstance(output, tuple) and output and isinstance(output[0], torch.Tensor)):
            raise RaptrError(
                f"a layer returned {describe(output)}; "
                "expected a tensor of hidden states, or a tuple that begins with one."
            )
        return cls(tuple(_part(part, signature, args, kwargs) for part in output[1:]))

    @property
    def made(self) -> tuple[int, ...]:
        """Which parts of the tuple the block made itself; hidden states are part 0."""
        return tuple(i for i, part in enumerate(self.rest or (), start=1) if part == "made")

    def unread(self) -> "Pattern":
        """The same, with None for what the block made."""
        return self if not self.made else Pattern(tuple(None if p == "made" else p for p in self.rest or ()))

    def without(self, hidden: torch.Tensor, args: Arguments, kwargs: Keywords) -> Any:
        """What a skipped block returns: its hidden states, None, and the arguments that are passed on."""
        if self.rest is None:
            return hidden
        return (hidden, *(part.of(args, kwargs) if isinstance(part, Argument) else None for part in self.rest))


BARE = Pattern(None)


@dataclass(slots=True, eq=False)
class Returns:
    """What the blocks of one stack return, learned from those that run.

    Attributes:
        stack: the stack's name, for messages.
        verified: whether `raptr.model.discovery.verify` saw every block run: then the layers that make something
            are known, and required.
        pattern: of the last block that ran and made nothing; None until learned.
        made: what an executed block returned that a skipped one could not, where nothing was verified.
        several: whether a batch of which layers ran some sequences had more than one sequence.
    """

    stack: str
    verified: bool = False
    pattern: Pattern | None = None
    made: str | None = None
    several: bool = False

    def learn(self, output: Any, signature: Signature, args: Arguments, kwargs: Keywords) -> None:
        """Take an executed block's return value as the pattern."""
        if self.pattern is BARE and isinstance(output, torch.Tensor):
            return
        found = Pattern.of(output, signature, args, kwargs)
        if not found.made:
            self.pattern = found
        elif not self.verified:
            self.made = describe(output)

    def supply(self, hidden: torch.Tensor, args: Arguments, kwargs: Keywords) -> Any:
        """What a skipped block returns.

        Raises:
            RaptrError: blocks of the stack make something that a skipped one could not supply.
        """
        if self.made is not None or self.pattern is None:
            raise RaptrError(
                f"a layer of {self.stack!r} returned {self.made}, of which it made more than the hidden states; a "
                "skipped layer can only pass on hidden states and arguments. Pass inputs= to attach, so that the "
                "layers which make something are found and kept, or attach a model whose layers return a tensor."
            )
        return self.pattern.without(hidden, args, kwargs)


def _part(part: Any, signature: Signature, args: Arguments, kwargs: Keywords) -> Part:
    return None if part is None else signature.passed(part, args, kwargs) or "made"


def describe(output: Any) -> str:
    """A return value by its types."""
    if isinstance(output, tuple):
        return "a tuple (" + ", ".join(type(part).__name__ for part in output) + ")"
    return f"a {type(output).__name__}"
