"""A recorded run of a model's twin: what went into every block and what came out of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from raptr.errors import RaptrError
from raptr.model.discovery.dependencies import Node, Place, Span, moment
from raptr.model.discovery.meta_twin import CannotRun, attempts, first_that_runs
from raptr.model.gate.outputs import Arguments, Keywords, Pattern, Signature
from raptr.model.stacks import path_of


@dataclass(frozen=True)
class Seen:
    """Hidden states, as they were when they were seen: which output of which node, and how often they were changed."""

    tensor: torch.Tensor
    node: Node | None
    output: int
    version: int

    @classmethod
    def now(cls, tensor: torch.Tensor) -> "Seen":
        """As they are now."""
        return cls(tensor, tensor.grad_fn, tensor.output_nr, tensor._version)

    def unchanged(self, later: "Seen") -> bool:
        """Whether these are the same numbers: the same memory, not written to in between."""
        return self.version == later.version and _memory(self.tensor) == _memory(later.tensor)


@dataclass(frozen=True)
class Call:
    """What went into a block and came out of it. Autograd nodes and versions are of that moment."""

    span: Span
    signature: Signature
    call: tuple[Arguments, Keywords]
    entered: Seen
    returned: Seen
    rest: tuple[Any, ...]
    pattern: Pattern

    @property
    def place(self) -> Place:
        """Of the block."""
        return self.span.place

    @property
    def made(self) -> tuple[Any, ...]:
        """The parts that the block made, besides hidden states."""
        return tuple(self.rest[i - 1] for i in self.pattern.made)

    @property
    def given(self) -> tuple[Any, ...]:
        """All arguments."""
        args, kwargs = self.call
        return (*args, *kwargs.values())


@contextmanager
def recording(twin: nn.Module, names: Sequence[Sequence[str]]) -> Iterator[list[Call]]:
    """Record the calls of a twin's blocks, given by the paths of each stack."""
    calls: list[Call] = []
    entered: dict[Place, tuple[Seen, int]] = {}

    def watch(place: Place, block: nn.Module) -> Iterator[RemovableHandle]:
        signature = Signature.of(block)

        def before(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
            hidden = signature.hidden.of(args, kwargs)
            if not isinstance(hidden, torch.Tensor):
                raise CannotRun(
                    f"a layer was called with a {type(hidden).__name__} as its {signature.hidden.name!r}; a layer "
                    "takes hidden states as its first argument, or as the one named hidden_states."
                )
            if hidden.grad_fn is None and hidden.is_floating_point():  # given from outside: its way is to be seen too
                hidden = hidden.detach().requires_grad_().view_as(hidden)
                args, kwargs = signature.hidden.replaced(hidden, args, kwargs)
            entered[place] = (Seen.now(hidden), moment())
            return args, kwargs

        def after(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            pattern = Pattern.of(output, signature, args, kwargs)
            hidden, *rest = (output,) if isinstance(output, torch.Tensor) else output
            seen, start = entered[place]
            span = Span(place, start, moment())
            calls.append(Call(span, signature, (args, kwargs), seen, Seen.now(hidden), tuple(rest), pattern))

        yield block.register_forward_pre_hook(before, with_kwargs=True)
        yield block.register_forward_hook(after, with_kwargs=True)

    with ExitStack() as hooks:
        for i, stack in enumerate(names):
            for layer, name in enumerate(stack):
                for handle in watch((i, layer), twin.get_submodule(name)):
                    hooks.callback(handle.remove)
        yield calls


def repeated(model: nn.Module) -> str | None:
    """Why a model in which no stack is found may have none: a module of some list is called several times."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    names = [[path_of(model, module) for module in modules if any(module.children())] for modules in lists]
    counts: Counter[str] = Counter()

    @contextmanager
    def counted(twin: nn.Module) -> Iterator[None]:
        counts.clear()
        with ExitStack() as hooks:
            for name in {name for stack in names for name in stack}:
                block = twin.get_submodule(name)
                handle = block.register_forward_pre_hook(lambda _, __, name=name: counts.update([name]))
                hooks.callback(handle.remove)
            yield

    try:
        first_that_runs(model, attempts(model, length=8), counted)
    except RaptrError:
        return None
    return next(
        (
            f"{name} is called {times} times: layers that share their weights cannot be left out one by one"
            for name, times in counts.most_common(1)
            if times > 1
        ),
        None,
    )


def _memory(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What memory a tensor shows, and how; a view of the whole shows the same."""
    storage = tensor.untyped_storage()._cdata  # its address: on the meta device there is no memory to point at
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
