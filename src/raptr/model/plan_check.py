"""What a plan asks of a model, checked before anything is trained."""

from typing import NoReturn

from raptr.errors import RaptrError
from raptr.model.copies import check_copies
from raptr.model.discovery.layers import Layers
from raptr.model.discovery.verify import Verified
from raptr.plan import Stage, Subnetwork, Trainable


def check_plan(plan: Trainable, layers: Layers) -> None:
    """Refuse a plan that could not be trained to its end; plans without raptr's stages are checked step by step.

    Raises:
        RaptrError: the first step of a stage trains what is not a part of the model, or copies what cannot be copied.
    """
    for number, stage in enumerate(getattr(plan, "stages", ())):
        if not isinstance(stage, Stage):
            return
        try:
            check_subnetwork(plan.subnetwork(stage.start), layers)
            if number == 0 and stage.stop > 1:
                check_subnetwork(plan.subnetwork(stage.stop - 1), layers)  # a plan may begin with the whole model
            check_copies(layers, plan.transition(stage.start))
        except RaptrError as error:
            raise RaptrError(f"stage {number + 1} of the plan, from step {stage.start} on: {error}") from error


def check_subnetwork(subnetwork: Subnetwork, layers: Layers) -> None:
    """Refuse a subnetwork that is not a part of the model, or asks of a layer what it cannot do in part.

    Raises:
        RaptrError: as `Subnetwork.check`; or a factor on a layer that does not add to its input, or of which that is
            not known; or some sequences of layers whose sequences cannot be told apart.
    """
    subnetwork.check(layers.shape)
    if not subnetwork.parts:
        return
    for i, stack in enumerate(layers.stacks):
        if layers.in_part[i]:  # nothing to refuse
            continue
        verified = layers.verified[i] if layers.verified else None
        for layer, part in subnetwork.kept(i):
            scale = part.factor()
            if scale != 1 and (verified is None or not verified.branches[layer].residual):
                _refuse_scale(stack.name, layer, scale, verified)
            if part.sequences is not None:
                reason = layers.orders[i][layer]
                if verified is not None and verified.aside:
                    reason = f"{verified.required[0][1]}, of the whole batch"
                if reason is not None:
                    raise RaptrError(
                        f"layer {layer} of {stack.name!r} was to run on some sequences of the batch, but cannot: "
                        f"{reason}. Use a method that keeps or skips whole layers."
                    )


def _refuse_scale(stack: str, layer: int, scale: float, verified: Verified | None) -> NoReturn:
    asked = f"layer {layer} of {stack!r} was to have its update scaled by {scale:g}"
    if verified is None:
        raise RaptrError(
            f"{asked}, but its layers were taken on trust, so it is not known whether they add to their input; "
            "pass inputs= to attach, or use scaling='none'."
        )
    raise RaptrError(
        f"{asked}, but it does not return its input plus an update (a post-norm layer normalises the sum), so "
        "x + s (layer(x) - x) would undo its norm; use scaling='none', or a pre-norm model."
    )
