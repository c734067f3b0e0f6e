"""One recorded run, before anything is changed: are these the layers, and which of them can be skipped?

On a meta twin every block's call is recorded. Then it is checked that each block is called once and in order,
that what enters a layer is what the layer before it returned, and what else layers hand to each other. Layers
that later ones cannot do without are required. Last, the twin is run with only those: the same gates,
the same model code, no other layer.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from raptr.errors import RaptrError
from raptr.model.discovery.dependencies import Place, reads
from raptr.model.discovery.meta_twin import CannotRun, Inputs, Ran, attempts, first_that_runs, longest_sequence, run
from raptr.model.discovery.recorded_run import Call, recording
from raptr.model.discovery.residual import Branches, branches
from raptr.model.gate.gate import put_gates
from raptr.model.gate.outputs import Pattern, Returns
from raptr.model.stacks import Required, Stack, path_of


@dataclass(frozen=True)
class Needed:
    """Values, besides hidden states, that later layers need of a layer.

    Attributes:
        arguments: names by which later layers receive the values; empty if they read them in another way.
        modules: the modules that computed the values, as text; empty if unknown.
    """

    arguments: tuple[str, ...]
    modules: str = ""

    @property
    def aside(self) -> bool:
        """Whether later layers read the values in another way than as an argument."""
        return not self.arguments

    @property
    def reason(self) -> str:
        """The reason for keeping the layer, for messages."""
        if self.arguments:
            return f"it makes {' and '.join(self.arguments)}, which later layers receive"
        return f"later layers also read what {self.modules or 'it'} computes besides the hidden states"


@dataclass(frozen=True)
class Verified:
    """What is known of a stack after its recorded run.

    Attributes:
        pattern: of a block that makes nothing.
        required: the layers that must stay.
        branches: how each layer adds to its input.
        aside: whether layers read what others made otherwise than as an argument.
    """

    pattern: Pattern | None
    required: Required
    branches: tuple[Branches, ...] = ()
    aside: bool = False


def verify(model: nn.Module, stacks: Sequence[Stack], inputs: Inputs | None = None) -> tuple[Verified, ...]:
    """Record a run of the model's twin and tell which layers can be skipped; the model is not touched.

    Args:
        model: the model.
        stacks: its stacks, in running order.
        inputs: what to run it with; made up for Hugging Face models if not given.

    Returns:
        For each stack what its blocks return, and its required layers.

    Raises:
        RaptrError: the twin cannot be run, or these are not layers of which some can be left out; with
            the layer and the reason.
    """
    names = [[path_of(model, block) for block in stack.blocks] for stack in stacks]

    @contextmanager
    def recorded(twin: nn.Module) -> Iterator[list[Call]]:
        with recording(twin, names) as calls, torch.enable_grad():
            yield calls

    with torch.inference_mode(False):
        ways = attempts(model, length=min(8, longest_sequence(model) or 8), inputs=inputs)
        ran = first_that_runs(model, ways, recorded)
        check_order(type(model).__name__, stacks, ran.seen)
        check_links(stacks, ran.seen)
        blocks = [[ran.twin.get_submodule(name) for name in stack] for stack in names]
        required = required_layers(stacks, blocks, ran.seen, ran.output)
        found = tuple(_verified(stack, i, ran.seen, required[i], blocks[i]) for i, stack in enumerate(stacks))
        _rehearse(ran, stacks, blocks, found)
    return found


def check_order(model: str, stacks: Sequence[Stack], calls: Sequence[Call]) -> None:
    """Refuse layers that are not each called once and in order."""
    expected = [(i, layer) for i, stack in enumerate(stacks) for layer in range(len(stack.blocks))]
    called = [call.place for call in calls]
    if called == expected:
        return
    (place, times), *_ = Counter(called).most_common(1) or [((0, 0), 0)]
    if times > 1:
        raise RaptrError(
            f"{model} calls layer {place[1]} of {stacks[place[0]].name!r} {times} times in one run: layers that share "
            "their weights cannot be left out one by one, so it cannot be trained by parts."
        )
    order = ", ".join(f"{stacks[i].name}.{layer}" for i, layer in called) or "none"
    raise RaptrError(
        f"{model} does not call each of its layers exactly once and in order (called: {order}); such a model "
        "cannot be trained by parts. If these are not its layers, pass blocks=, the ModuleList of its layers."
    )


def check_links(stacks: Sequence[Stack], calls: Sequence[Call]) -> None:
    """Refuse layers that do not enter what the layer before them returned."""
    for before, call in pairwise(calls):
        i, layer = call.place
        if before.place[0] == i and not before.returned.unchanged(call.entered):
            raise RaptrError(
                f"layer {layer} of {stacks[i].name!r} does not enter what layer {layer - 1} returned, but something "
                "made of it in between (a skip connection as in a U-Net, or a module between the layers): leaving out "
                "a layer would change what that does. Such a model cannot be trained by parts."
            )


def required_layers(
    stacks: Sequence[Stack], blocks: Sequence[Sequence[nn.Module]], calls: Sequence[Call], output: Any
) -> list[dict[int, Needed]]:
    """The layers of each stack that later ones cannot do without, with what is needed of them.

    Raises:
        RaptrError: a layer, or the model's output, reads hidden states of another layer than the one before
            it, or the output something else that a layer made.
    """
    states = {call.returned.node: call.place for call in calls if call.returned.node is not None}
    spans = [call.span for call in calls]
    last = {(i, len(stack.blocks) - 1) for i, stack in enumerate(stacks)}
    readers: dict[Place, set[Place]] = {}
    used: dict[Place, set[int]] = {}
    for number, call in enumerate(calls):
        i, layer = call.place
        found = reads([call.returned.node], call.entered.node, call.place, states, spans)
        _refuse_skips(found.states - last - {(i, layer - 1)}, f"layer {layer} of {stacks[i].name!r}", stacks)
        for maker, parameters in found.made.items():
            readers.setdefault(maker, set()).add(call.place)
            used.setdefault(maker, set()).update(parameters)
        for earlier in calls[:number]:
            if any(part is given for part in earlier.made if not isinstance(part, int | str) for given in call.given):
                readers.setdefault(earlier.place, set()).add(call.place)
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    found = reads([tensor.grad_fn for tensor in tensors], None, None, states, spans)
    _refuse_skips(found.states - last, "the model's output", stacks)
    for call in calls:
        i, layer = call.place
        if call.place in found.made or any(part is tensor for part in call.made for tensor in tensors):
            raise RaptrError(
                f"the model's output also holds what layer {layer} of {stacks[i].name!r} made besides its hidden "
                "states, which a skipped layer could not; such a model cannot be trained by parts."
            )
    required: list[dict[int, Needed]] = [{} for _ in stacks]
    for (i, layer), places in sorted(readers.items()):
        names = _names([call for call in calls if call.place in places], (i, layer), calls)
        modules = "" if names else _modules(blocks[i][layer], used.get((i, layer), set()))
        required[i][layer] = Needed(tuple(names), modules)
    return required


def _refuse_skips(states: Collection[Place], who: str, stacks: Sequence[Stack]) -> None:
    for i, layer in sorted(states):
        raise RaptrError(
            f"{who} also reads the hidden states of layer {layer} of {stacks[i].name!r} (a skip connection as in a "
            "U-Net), but raptr leaves out layers only where each reads what the one before it returned; "
            "such a model cannot be trained by parts."
        )


def _names(readers: Sequence[Call], maker: Place, calls: Sequence[Call]) -> list[str]:
    """The arguments by which later layers receive what a layer returned besides hidden states."""
    made = next(call.made for call in calls if call.place == maker)
    found = [reader.signature.passed(part, *reader.call) for reader in readers for part in made]
    return list(dict.fromkeys(argument.name for argument in found if argument is not None))


def _modules(block: nn.Module, parameters: Collection[int]) -> str:
    """The first modules of a block whose parameters something was made with."""
    names = [name.rpartition(".")[0] or name for name, p in block.named_parameters() if id(p) in parameters]
    different = list(dict.fromkeys(names))
    return f"its {', '.join(different[:3])}{' ...' if different[3:] else ''}" if different else ""


def _verified(
    stack: Stack, i: int, calls: Sequence[Call], required: dict[int, Needed], blocks: Sequence[nn.Module]
) -> Verified:
    """What is known of a stack; refused if (nearly) no layer can be left out."""
    count = len(stack.blocks)
    if count > 1 and len(required) >= max(2, count - 1):
        layer, needed = min(required.items(), key=lambda pair: pair[0])
        raise RaptrError(
            f"{len(required)} of the {count} layers of {stack.name!r} hand on more than hidden states (layer {layer}: "
            f"{needed.reason}), which a skipped layer could not; such a model cannot be trained by parts."
        )
    # What a layer makes and nobody reads (Bloom's attention weights) need not be supplied.
    free = [call.pattern.unread() for call in calls if call.place[0] == i and call.place[1] not in required]
    patterns = set(free)
    if len(patterns) > 1:
        raise RaptrError(
            f"the layers of {stack.name!r} do not all return the same kind of value ({'; '.join(map(str, patterns))}), "
            "so what a skipped one is to return cannot be told; such a model cannot be trained by parts."
        )
    reasons = tuple((layer, needed.reason) for layer, needed in sorted(required.items(), key=lambda pair: pair[0]))
    added = tuple(_branches(call, blocks[call.place[1]]) for call in calls if call.place[0] == i)
    return Verified(next(iter(patterns), None), reasons, added, any(needed.aside for needed in required.values()))


def _branches(call: Call, block: nn.Module) -> Branches:
    names = {id(p): name for name, p in block.named_parameters()}
    return branches(call.returned.node, (call.entered.node, call.entered.output), call.span.start, names)


def _rehearse(
    ran: Ran[list[Call]], stacks: Sequence[Stack], blocks: Sequence[Sequence[nn.Module]], found: Sequence[Verified]
) -> None:
    """Run the twin with the required layers only."""
    for stack, modules, verified in zip(stacks, blocks, found, strict=True):
        returns = Returns(stack.name, verified=True, pattern=verified.pattern)
        kept = dict(verified.required)
        put_gates(modules, returns, kept).keep(tuple(kept), forced=True)
    try:
        with torch.no_grad():
            run(ran.twin, ran.way)
    except CannotRun as error:
        raise RaptrError(
            f"{error} That was with all layers skipped but those that were seen to be required; the layers depend on "
            "each other in a way that cannot be seen, and such a model cannot be trained by parts."
        ) from error
