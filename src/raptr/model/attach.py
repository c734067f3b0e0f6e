"""`attach`: make a model trainable by parts, in place."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.model.boundary_copies import Boundaries
from raptr.model.class_swap import is_restorable, restore_class
from raptr.model.discovery.layers import Layers, find_layers
from raptr.model.discovery.meta_twin import Inputs
from raptr.model.flops import flops_of
from raptr.model.gate.gate import GATE, Gate, Runs, Selection, gate_of, put_gates
from raptr.model.memory_trial import nothing_happened
from raptr.model.optimizer import Inactive, Prepared, create_state, prepared_by
from raptr.model.plan_check import check_subnetwork
from raptr.model.rank_check import EVERY, Agreement
from raptr.model.stacks import Blocks
from raptr.model.width.freeze import FrozenSlices
from raptr.model.width.part_run import Widths
from raptr.plan import LayerCosts, Subnetwork, Trainable
from raptr.plan.protocol import lr_factor_of


def attach(
    model: nn.Module, blocks: Blocks | None = None, compile: bool = False, inputs: Inputs | None = None
) -> "AttachedModel":
    """Make a model trainable by parts, in place; nothing is wrapped or renamed.

    In training, a layer that is not part of the active subnetwork returns its input; in
    ``model.eval()``, and before anything is activated, the full model runs. Everything is checked
    before anything is changed: a model that is refused is as it was.

    What is checked is one recorded run of a twin on the meta device: each layer is called once and in
    order and enters what the layer before it returned. A layer that makes something that later ones read
    besides hidden states (T5's first layer the position bias, Gemma-3n's donors keys and values) is required:
    ``net.shape`` says so, and plans keep it.

    Args:
        model: a Hugging Face model (its stacks are found), or any module together with ``blocks``.
            Attach before DDP, ``fully_shard`` or ``torch.compile``.
        blocks: the ModuleList of the layers, or a dict of name -> ModuleList in running order. Without
            ``inputs`` they are taken on trust, and nothing is run.
        compile: compile each block by itself, so that every path uses one graph. Compiling the
            whole model instead recompiles for every path.
        inputs: what to make the recorded run with (keyword arguments as a dict, or positional ones
            as a tuple), for a module of one's own or one whose inputs cannot be made up. Where the code
            looks at their values, which the meta device does not have, a copy of the model is run instead.

    Returns:
        The handle with which parts are activated; ``print`` shows the stacks found.

    Raises:
        RaptrError: the model is attached already, its stacks cannot be told, or its layers cannot be
            left out one by one.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> import raptr
        >>> config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        ...                      num_attention_heads=2)
        >>> net = raptr.attach(LlamaForCausalLM(config))
        >>> net.shape.layers
        (4,)
    """
    if not isinstance(model, nn.Module):
        raise RaptrError(f"attach was given a {type(model).__name__}; expected a torch.nn.Module.")
    if any(gate_of(module) for module in model.modules()):
        raise RaptrError(
            f"this {type(model).__name__} is attached already; use that handle, or detach it first "
            "(a ProgressiveCallback's is callback.net)."
        )
    if isinstance(model, torch._dynamo.OptimizedModule):
        raise RaptrError(
            "the model is compiled as a whole, which recompiles for every path and then runs eagerly; "
            "attach the model itself, with compile=True to compile each block."
        )
    return AttachedModel(model, find_layers(model, blocks, inputs), inputs, compile=compile)


class AttachedModel:
    """The handle that `attach` returns: activates parts of the model. Use `attach` to make one.

    Attributes:
        model: the model.
        shape: its stacks and layers.
        lr_factor: what the learning rate of the active step is multiplied with, on top of its schedule.
    """

    def __init__(self, model: nn.Module, layers: Layers, inputs: Inputs | None, *, compile: bool) -> None:
        self.model = model
        self.shape = layers.shape
        self.lr_factor = 1.0
        self._layers = layers
        self._stacks = layers.stacks
        self._inputs = inputs
        self._compiled = compile
        self._selections: list[Selection] = []
        self._runs = Runs()
        self._widths = Widths(layers.stacks, layers.widths)
        self._prepared: list[Prepared] = []
        self._active: Subnetwork | None = None
        self._step: int | None = None
        self._begun = 0  # the stamp of this step's begin
        self._boundaries = Boundaries(model, layers)
        self._agreement = Agreement(layers.shape)
        for i, (stack, shape) in enumerate(zip(self._stacks, self.shape.stacks, strict=True)):
            returns, required = layers.returns(i), dict(shape.required)
            self._selections.append(put_gates(stack.blocks, returns, required, self._runs))
            if compile:
                for block in stack.blocks:
                    _compile(block)

    def __repr__(self) -> str:
        lines = [f"raptr: {type(self.model).__name__} with {_plural(len(self._stacks), 'stack')}"]
        for i, (stack, shape) in enumerate(zip(self._stacks, self.shape.stacks, strict=True)):
            kept = "full" if self._active is None else f"kept {list(self._active.layers[i])}"
            kinds = ", ".join(sorted({type(block).__name__ for block in stack.blocks}))
            lines.append(f"  {stack.name}: {_plural(len(stack.blocks), 'layer')} of {kinds}, {kept}")
            lines += [f"    layer {layer} is required: {reason}" for layer, reason in shape.required]
        return "\n".join(lines)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of all stacks, in order."""
        return [block for stack in self._stacks for block in stack.blocks]

    @property
    def subnetwork(self) -> Subnetwork:
        """What a training step runs now: the whole model until something is activated."""
        return self._active or Subnetwork.full(self.shape)

    def activate(self, plan: Trainable, step: int, micro: int = 0) -> Subnetwork:
        """Set what the next step trains; it holds until the next call.

        Call it before the forward of a step, and for the next step after the optimizer's: what was trained is what
        ran since, and recomputation under activation checkpointing runs what is active in the backward. The
        micro-steps of one step differ by ``micro``. Copies are made by the first call of their step, once for each
        plan object; the learning rate's factor holds inside the optimizer's step only.

        Args:
            plan: anything with ``subnetwork(step, micro=0)`` and ``transition(step)``.
            step: the optimizer step, from 0.
            micro: the micro-step, where gradients are accumulated.

        Returns:
            The subnetwork that is active now.

        Raises:
            RaptrError: the subnetwork is not a part of this model, or asks of a layer what it cannot do; the plan
                cannot be trained to its end (all stages are looked at when a plan is first activated); the gradients
                of another step are not used yet; or the step copies layers or changes the learning rate, and no
                optimizer was given to `prepare`.
        """
        self._refuse_detached()
        self._refuse_unused_gradients(step)
        optimizers = [prepared.optimizer for prepared in self._prepared]
        copies = self._boundaries.due(plan, step, optimizers)
        subnetwork, factor = plan.subnetwork(step, micro=micro), lr_factor_of(plan, step)
        check_subnetwork(subnetwork, self._layers)
        self._widths.check(subnetwork)
        if factor != 1 and not optimizers:
            raise RaptrError(
                f"step {step} multiplies the learning rate by {factor:g}, but no optimizer is known; "
                "call net.prepare(optimizer) before training."
            )
        self._boundaries.make(plan, step, copies, optimizers)
        self._set(subnetwork, forced=False)
        self._active, self.lr_factor = subnetwork, factor
        if new := step != self._step:
            self._begun = self._runs.advance()
        self._step = step
        for prepared in self._prepared:
            prepared.begin(factor, new=new)
        self._widths.forget(min((prepared.since for prepared in self._prepared), default=self._begun))
        return subnetwork

    def check_ranks(self, plan: Trainable, step: int, *, micro_steps: int = 1, every: int = EVERY) -> None:
        """Make sure that all ranks train the same layers, heads, neurons and copies; call it before `activate`.

        Ranks that choose different layers are wrong without an error under FSDP2, or wait for each other for ever. It
        is a collective operation, made at the first step, where a stage begins and every ``every`` steps; in between,
        and where there is one process, a call does nothing. `ProgressiveCallback` and ``raptr train`` call it.

        Args:
            plan: what is activated.
            step: the optimizer step, from 0.
            micro_steps: of a step, where gradients are accumulated and each has a subnetwork of its own.
            every: steps between two comparisons.

        Raises:
            RaptrError: on every rank, before anything is trained, with what differs: step, stack, which layers on
                which rank.
        """
        self._agreement.check(plan, step, micro_steps, every)

    @contextmanager
    def using(self, subnetwork: Subnetwork) -> Iterator[None]:
        """Run exactly this subnetwork inside the block, in evaluation too.

        Example:
            >>> import raptr
            >>> model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
            >>> net = raptr.attach(model, blocks=model[0])
            >>> with net.using(raptr.Subnetwork.of((1,))):
            ...     torch.equal(model[0][0](torch.ones(1, 2)), torch.ones(1, 2))
            True
        """
        self._refuse_detached()
        check_subnetwork(subnetwork, self._layers)
        self._widths.check(subnetwork)
        before = [(selection.layers, selection.parts, selection.forced) for selection in self._selections]
        try:
            with self._widths.aside(subnetwork, self._selections):
                self._set(subnetwork, forced=True)
                yield
        finally:
            for selection, (layers, parts, forced) in zip(self._selections, before, strict=True):
                selection.keep(layers, parts, forced=forced)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Run the full model once before training, so that an out-of-memory of the last stage shows at once.

        Gradients, buffers, random states and what was active are put back after the block.

        Raises:
            RaptrError: it does not fit.

        Example:
            >>> import raptr
            >>> model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
            >>> net = raptr.attach(model, blocks=model[0])
            >>> with net.trial():
            ...     model[0][1](model[0][0](torch.ones(1, 2))).sum().backward()
            >>> model[0][0].weight.grad is None
            True
        """
        ran = [dict(selection.ran) for selection in self._selections]
        try:
            with nothing_happened(self.model), self.using(Subnetwork.full(self.shape)):
                yield
        finally:
            for selection, before in zip(self._selections, ran, strict=True):
                selection.ran = before

    def prepare(self, optimizer: torch.optim.Optimizer, inactive: Inactive = "freeze") -> None:
        """Say what the optimizer does with the layers that a step skipped; call it before training.

        Also creates the state of every parameter that has none, so that checkpoints written before
        some layer was trained are complete. After ``fully_shard``, before the first step.

        Args:
            optimizer: a torch optimizer, or one wrapped by Accelerate. One call per optimizer; several optimizers of
                one model can step at different times, and each trains what ran since its own last step.
            inactive: "freeze" leaves skipped layers and their state untouched, and of the others the heads and
                neurons that were not selected; "zero" gives them zero gradients, so that momentum and weight
                decay move them.

        Raises:
            RaptrError: an unknown policy, an optimizer that was prepared before, by this handle or another one, that
                wraps another optimizer, or that holds no parameter of the layers.
        """
        if inactive not in get_args(Inactive):
            raise RaptrError(f"inactive={inactive!r} is not known; expected 'freeze' or 'zero'.")
        self._refuse_detached()
        optimizer = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrapper holds the real one
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise RaptrError(f"prepare was given a {type(optimizer).__name__}; expected a torch optimizer.")
        for prepared in prepared_by(optimizer):
            if prepared in self._prepared:
                raise RaptrError("this optimizer was prepared before; call prepare once for each optimizer.")
            raise RaptrError(
                "this optimizer was prepared by the handle of another attached model, and both would scale its "
                "learning rate. Make one optimizer for each attached model, or attach them as one: "
                "attach(model, blocks={name: layers, ...})."
            )
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        owners = self._owners()
        if not held & owners.keys():
            raise RaptrError(
                "the optimizer holds no parameter of the model's layers; make it from this model's parameters, "
                "after fully_shard where the model is sharded."
            )
        frozen = FrozenSlices(optimizer, self._widths) if inactive == "freeze" else None
        create_state(optimizer)
        prepared = Prepared(optimizer, inactive, owners, self._runs, frozen)
        prepared.since = self._begun
        if self._active is not None:
            prepared.begin(self.lr_factor, new=False)
        self._prepared.append(prepared)

    def detach(self) -> None:
        """Make the model an ordinary one again.

        Raises:
            RaptrError: a block's class was swapped again after `attach` (``fully_shard`` does that);
                taking the gate out from under it would lose that class.
        """
        self._refuse_detached()
        if not self.detachable:
            raise RaptrError(
                "the blocks' class was changed after attach (fully_shard does that); "
                "a sharded model stays attached: save it, and load it where raptr is not attached."
            )
        self._widths.release()
        for block in self.blocks:
            restore_class(block)
            if self._compiled:
                block.__dict__.pop("_compiled_call_impl", None)
        for prepared in self._prepared:
            prepared.remove()
        self._prepared.clear()

    @property
    def detachable(self) -> bool:
        """Whether `detach` can give every block its class back: not after ``fully_shard``."""
        gated = all(is_restorable(block, GATE) for block in self.blocks)
        return gated and self._widths.releasable

    def flops(self, length: int | None = None, target_length: int | None = None) -> LayerCosts:
        """Training FLOPs of one sequence, by layer; see `count_flops`.

        Without a length they are those of the ``inputs`` that were given to `attach`, or of an image.
        """
        inputs = self._inputs if length is None else None
        return flops_of(self.model, self._stacks, length, inputs=inputs, target_length=target_length)

    def _refuse_detached(self) -> None:
        gate = gate_of(self._stacks[0].blocks[0])
        if gate is None or gate.selection is not self._selections[0]:
            raise RaptrError("this handle was detached; use the handle of the newest attach, or attach again.")

    def _refuse_unused_gradients(self, step: int) -> None:
        """Reject a step if no optimizer has stepped, and all have gradients that a scaler would have cleared."""
        if step == self._step or not self._prepared or any(prepared.stepped for prepared in self._prepared):
            return
        if all(prepared.has_gradients() for prepared in self._prepared):
            raise RaptrError(
                f"step {step} was activated while the gradients of step {self._step} are not used yet: their update "
                "would be made with another step's learning rate and layers. Activate a step before its forward, after "
                "optimizer.step() and zero_grad() of the one before; where gradients are accumulated, say "
                "net.activate(plan, step, micro)."
            )

    def _set(self, subnetwork: Subnetwork, *, forced: bool) -> None:
        self._widths.choose(subnetwork, self._selections, forced=forced)
        for i, (selection, layers) in enumerate(zip(self._selections, subnetwork.layers, strict=True)):
            selection.keep(layers, subnetwork.parts[i] if subnetwork.parts else (), forced=forced)

    def _owners(self) -> dict[int, list[Gate]]:
        """The gates of the layers that each parameter belongs to; parameters used elsewhere too are left out."""
        owners: dict[int, list[Gate]] = {}
        inside = set()
        for stack in self._stacks:
            for block in stack.blocks:
                inside |= {id(module) for module in block.modules()}
                gate = gate_of(block)
                assert gate is not None
                for p in block.parameters():
                    owners.setdefault(id(p), []).append(gate)
        for module in self.model.modules():
            if id(module) not in inside:
                for p in module.parameters(recurse=False):
                    owners.pop(id(p), None)
        return owners


def _compile(block: nn.Module) -> None:
    """Compile a block by itself.

    T5 needs four graphs, and as many again for layers that run narrow, before and after their sizes first change; past
    8 torch would run eagerly.
    """
    known = "recompile_limit" in inspect.signature(torch.compile).parameters
    block.compile(**({"recompile_limit": 64} if known else {}))


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
