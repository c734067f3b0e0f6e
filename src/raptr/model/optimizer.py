"""Skipped layers and the optimizer.

A layer that did not take part in a step has no gradient. ``freeze`` makes sure that the optimizer
leaves it and its state alone; ``zero`` gives it zero gradients, so that momentum and weight decay
go on acting, as they do in frameworks where every parameter always has a gradient.
"""

import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import nn

from raptr.errors import RaptrError
from raptr.messages import first_line, warn
from raptr.model.gate.gate import Gate, Runs
from raptr.model.width.freeze import FrozenSlices

Inactive = Literal["freeze", "zero"]

_INSIDE = ("raptr.", "torch.", "accelerate.")
"""Packages whose lines no warning of a step names."""

# State that is zero before the first step, in torch's optimizers and those of the same build.
_ZERO_STATE = {
    "step",
    "exp_avg",
    "exp_avg_sq",
    "exp_inf",
    "max_exp_avg_sq",
    "momentum_buffer",
    "square_avg",
    "grad_avg",
    "row_var",
    "col_var",
    "variance",
}


def create_state(optimizer: torch.optim.Optimizer) -> None:
    """Create the optimizer state of every parameter that has none, as it is before the first step.

    Optimizers make a parameter's state when it first has a gradient. A checkpoint written before
    some layer was ever trained would then lack that layer's state, which sharded checkpoints refuse
    to load. The state is made by a step of the same optimizer class on stand-ins: zeros of each
    parameter's shape with zero gradients. Its step count is set back to 0, which is bit-identical to
    making it later; the parameters, their gradients and the optimizer's hooks are not touched.

    Raises:
        RaptrError: the optimizer cannot take such a step (LBFGS needs a closure), or leaves it to another one (SAM).
    """
    for name, value in vars(optimizer).items():
        if any(
            isinstance(one, torch.optim.Optimizer) for one in (value if isinstance(value, list | tuple) else [value])
        ):
            raise RaptrError(
                f"{type(optimizer).__name__} wraps another optimizer, in its attribute {name!r}, which holds the state "
                f"and makes the updates. Prepare that one: net.prepare(optimizer.{name})."
            )
    strange: set[str] = set()
    for group in optimizer.param_groups:
        if _begins_undamped(group):
            continue
        for p in group["params"]:
            if p.requires_grad and not optimizer.state.get(p):
                state = _first_state(optimizer, group, p)
                if state.keys() <= _ZERO_STATE:
                    optimizer.state[p] = state
                strange |= state.keys() - _ZERO_STATE
    if strange:
        warnings.warn(
            f"the state of {type(optimizer).__name__} ({', '.join(sorted(strange))}) is not known to begin at zero, so "
            "it is left to be made when a layer is first trained; a sharded checkpoint written before may not load.",
            stacklevel=3,
        )


def _first_state(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: torch.Tensor) -> dict[str, Any]:
    """The state that an optimizer would make for a parameter, before its first step."""
    twin = torch.zeros_like(p, requires_grad=True)
    twin.grad = torch.zeros_like(p)
    stand_in = object.__new__(type(optimizer))
    stand_in.__dict__.update(optimizer.__dict__)
    stand_in.__dict__.pop("step", None)  # a scheduler's patch, which counts steps
    stand_in.__dict__.update(
        param_groups=[{**group, "params": [twin]}],
        state=defaultdict(dict),
        _optimizer_step_pre_hooks=OrderedDict(),
        _optimizer_step_post_hooks=OrderedDict(),
    )
    try:
        stand_in.step()
    except Exception as error:  # whatever an optimizer raises that misses its closure
        raise RaptrError(
            f"{type(optimizer).__name__} cannot make its state before the first step ({first_line(error)}); "
            "use an optimizer whose step() needs no closure."
        ) from error
    state: dict[str, Any] = dict(stand_in.state[twin])
    if "step" in state:
        state["step"] = torch.zeros_like(state["step"]) if torch.is_tensor(state["step"]) else 0
    return state


def set_anew(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> None:
    """Let a parameter's state begin anew, as before the first step: zeros in the tensors that it has.

    State that is not known to begin at zero is taken away: the optimizer makes it again when it next needs it.
    """
    state = optimizer.state.get(p)
    if not state:
        return
    if not state.keys() <= _ZERO_STATE or _begins_undamped(next(g for g in optimizer.param_groups if _holds(g, p))):
        del optimizer.state[p]
        return
    for key, value in state.items():
        if torch.is_tensor(value):
            value.zero_()
        elif value is not None:
            state[key] = 0


def _begins_undamped(group: dict[str, Any]) -> bool:
    """Whether SGD's first momentum is the undamped gradient, which zeros would not give."""
    return bool(group.get("momentum") and group.get("dampening"))


def _holds(group: dict[str, Any], p: torch.Tensor) -> bool:
    return any(held is p for held in group["params"])


def drop_gradients(skipped: Iterable[nn.Parameter]) -> None:
    """``freeze``: without a gradient, an optimizer leaves a parameter and its state alone."""
    for p in skipped:
        p.grad = None


def fill_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """``zero``: every parameter has a gradient, so that momentum and weight decay act on it."""
    for p in parameters:
        if p.grad is None and p.requires_grad:
            p.grad = torch.zeros_like(p)


def _by_owners(
    parameters: Iterable[nn.Parameter], owners: Mapping[int, Sequence[Gate]]
) -> list[tuple[Sequence[Gate], list[nn.Parameter]]]:
    """The parameters of each layer, or of layers that share them, so that a step asks each layer once."""
    found: dict[tuple[int, ...], tuple[Sequence[Gate], list[nn.Parameter]]] = {}
    for p in parameters:
        gates = owners[id(p)]
        found.setdefault(tuple(map(id, gates)), (gates, []))[1].append(p)
    return list(found.values())


def prepared_by(optimizer: torch.optim.Optimizer) -> "list[Prepared]":
    """Return what was made of an optimizer by `AttachedModel.prepare`, of any handle that is not detached."""
    owners = (getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_pre_hooks.values())
    return [owner for owner in owners if isinstance(owner, Prepared)]


def _length(gradient: torch.Tensor) -> float:
    """Of all of it, where it is sharded."""
    found: Any = torch.linalg.vector_norm(gradient)
    return float(found.full_tensor() if hasattr(found, "full_tensor") else found)


class Prepared:
    """One optimizer, and what happens around each of its steps.

    Before a step skipped layers get no gradient, or zeros, and the learning rate its factor; after it the rate is the
    optimizer's own again, and what was not selected of the layers that ran is as it was. A closure makes gradients
    inside the step, so they are treated when it returns. A layer is skipped if it did not run since *this* optimizer's
    last step: optimizers of one model can step at different times.

    Attributes:
        stepped: whether it has stepped since the newest `begin`.
        since: the `Runs.now` from which on a layer must have run to take part in the next step.
        active: whether a subnetwork is active; before that, nothing is changed.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        inactive: Inactive,
        owners: Mapping[int, Sequence[Gate]],
        runs: Runs,
        frozen: FrozenSlices | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.stepped = self.active = False
        self.since = 0
        self._after_it = 0
        self._factor = 1.0
        self._inactive = inactive
        self._frozen = frozen
        self._runs = runs
        self._rate = ScaledRate(optimizer)
        self._warned = self._warned_of_none = False
        self._parameters = [p for group in optimizer.param_groups for p in group["params"] if id(p) in owners]
        self._layers = _by_owners(self._parameters, owners)
        # What others put aside before the step, and put back after it, must find weights and rates as they left them:
        # slices are put back first of all; the rate last, for which its hook is moved at each step.
        self._after = cast("OrderedDict[int, Any]", optimizer._optimizer_step_post_hooks)
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._put_back),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self._after.move_to_end(self._hooks[1].id, last=False)

    def begin(self, factor: float, *, new: bool) -> None:
        """Begin a step of the plan, or one of its micro-steps.

        Args:
            factor: what the learning rate is multiplied with in the optimizer's step.
            new: whether the step is another one than before. Gradients that were set to zero or taken away since, as
                when a scaler leaves out the optimizer's step, are then forgotten with the runs that made them.
        """
        self._rate.restore()
        if self.stepped:
            self.since = self._after_it
        elif new and not self.has_gradients():
            self.since = self._runs.now
        self.stepped, self._factor, self.active = False, factor, True

    def has_gradients(self) -> bool:
        """Return whether a layer that ran since the last step has a gradient other than 0."""
        ran = (p for gates, own in self._layers if self._any_ran(gates) for p in own)
        return any(p.grad is not None and _length(p.grad) != 0 for p in ran)

    def remove(self) -> None:
        """Leave the optimizer alone from now on."""
        self._rate.restore()
        for hook in self._hooks:
            hook.remove()

    def _any_ran(self, gates: Iterable[Gate]) -> bool:
        return any(gate.ran_since(self.since) for gate in gates)

    def _before_step(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not self.active:
            self._warn_of_none()
            return None
        if closure is None or any(self._any_ran(gates) for gates, _ in self._layers):
            self._treat_gradients()
        if self._frozen is not None:
            self._frozen.save(self.since, closure=closure is not None)
        self._rate.scale(self._factor)
        self._after.move_to_end(self._hooks[2].id)
        if closure is None:
            return None

        def treated() -> Any:
            loss = closure()
            self._treat_gradients()
            return loss

        return (
            (args, {**kwargs, "closure": treated}) if "closure" in kwargs else ((args[0], treated, *args[2:]), kwargs)
        )

    def _put_back(self, *_: Any) -> None:
        if self._frozen is not None:
            self._frozen.put_back()

    def _after_step(self, *_: Any) -> None:
        self._rate.restore()
        self.stepped, self._after_it = True, self._runs.advance()

    def _treat_gradients(self) -> None:
        if self._inactive == "zero":
            fill_gradients(self._parameters)
            return
        skipped = [p for gates, own in self._layers if not self._any_ran(gates) for p in own]
        self._warn_of_zeros(skipped)
        drop_gradients(skipped)

    def _warn_of_none(self) -> None:
        if not self._warned_of_none and all(self._any_ran(gates) for gates, _ in self._layers):
            self._warned_of_none = True
            warn(
                "an optimizer that was prepared makes a step, but no subnetwork is active: the full model was trained, "
                "and nothing was skipped or saved. Call net.activate(plan, step) before the forward of each step.",
                inside=_INSIDE,
            )

    def _warn_of_zeros(self, skipped: Iterable[nn.Parameter]) -> None:
        if not self._warned and any(p.grad is not None for p in skipped):
            self._warned = True
            warn(
                "layers that took no part in this step have gradients, which raptr removed, so that they stay as they "
                "are: an engine filled in zeros (DeepSpeed does), or they are left from zero_grad(set_to_none=False). "
                "An optimizer that an engine runs by itself would move these layers by momentum and weight decay.",
                inside=_INSIDE,
            )


class ScaledRate:
    """Learning rates of one optimizer at stage boundaries, scaled while its step runs.

    The scheduler, which computes each rate from the one before, sees its own values.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        >>> rate = ScaledRate(optimizer)
        >>> rate.scale(0.5)
        >>> optimizer.param_groups[0]["lr"]
        0.25
        >>> rate.restore()
        >>> optimizer.param_groups[0]["lr"]
        0.5
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._scaled: list[tuple[dict[str, Any], Any, Any]] = []

    def scale(self, factor: float) -> None:
        """Multiply every group's rate; until `restore`."""
        self.restore()
        if factor != 1:
            for group in self._optimizer.param_groups:
                own = group["lr"]
                group["lr"] = own * factor
                self._scaled.append((group, own, group["lr"]))

    def restore(self) -> None:
        """Give every group its own rate back, unless somebody has set another one since: after a step that raised."""
        for group, own, scaled in self._scaled:
            if group["lr"] is scaled:
                group["lr"] = own
        self._scaled.clear()
