"""What a plan says of a step, resolved to plain numbers, so that two processes can compare it.

A ``repr`` or a pickle of a plan says how it is written; two of them that differ may train the same, and two that are
equal may not. What is compared is what runs: layers, heads, neurons, factors, which sequences, copies, learning rate.
"""

import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

from raptr.plan.layer_part import LayerPart
from raptr.plan.protocol import Trainable, lr_factor_of
from raptr.plan.shape import ModelShape, StackShape

Fact = tuple[str, Any]
"""What something is called, and its value: a number or a tuple of numbers."""


def facts_of(plan: Trainable, step: int, shape: ModelShape, micro_steps: int = 1) -> Iterator[Fact]:
    """What a step trains, copies and multiplies its learning rate with, by name, in a fixed order.

    Of a layer only what is not whole is named, of the learning rate only a factor that is not 1.

    Args:
        plan: anything that can be trained.
        step: the step.
        shape: of the model: all heads of a layer are the same as no choice of heads.
        micro_steps: of a step.

    Raises:
        RaptrError: a subnetwork that is not a part of a model of this shape.

    Example:
        >>> from raptr.plan import RaPTr
        >>> shape = ModelShape.of(layers=3)
        >>> next(facts_of(RaPTr("2-3").plan(shape, 4), 3, shape))
        ("step 3, layers of 'layers'", (0, 1, 2))
    """
    for micro in range(micro_steps):
        subnetwork = plan.subnetwork(step, micro=micro)
        when = f"step {step}, " + (f"micro-step {micro}, " if micro_steps > 1 else "")
        subnetwork.check(shape)
        for i, stack in enumerate(shape.stacks):
            yield f"{when}layers of {stack.name!r}", subnetwork.layers[i]
            if subnetwork.parts:
                for layer, part in subnetwork.kept(i):
                    for what, value in _of_part(part, stack):
                        yield f"{when}{what} of layer {layer} of {stack.name!r}", value
    if (factor := lr_factor_of(plan, step)) != 1:
        yield f"step {step}, factor of the learning rate", factor
    for number, copy in enumerate(plan.transition(step)):
        value = (copy.stack, copy.source, copy.target, int(copy.reset), int(copy.silent))
        yield f"step {step}, copy {number} (stack, source, target, reset, silent)", value


def digest_of(plan: Trainable, step: int, shape: ModelShape, micro_steps: int = 1) -> bytes:
    """Sixteen bytes that differ where `facts_of` a step differs.

    Example:
        >>> from raptr.plan import RaPTr
        >>> shape = ModelShape.of(layers=12)
        >>> one, other = (RaPTr("3-12", seed=seed).plan(shape, 100) for seed in (0, 1))
        >>> [digest_of(one, step, shape) == digest_of(other, step, shape) for step in (0, 99)]
        [False, True]
    """
    found = blake2b(digest_size=16)
    for name, value in facts_of(plan, step, shape, micro_steps):
        for part in (name.encode(), _bytes(value)):
            found.update(struct.pack("<q", len(part)))
            found.update(part)
    return found.digest()


def fingerprint(plan: Trainable, shape: ModelShape, steps: int, samples: int = 64) -> str:
    """A digest of some of the first ``steps`` steps, spread evenly: plans whose draws differ there differ here.

    Example:
        >>> from raptr.plan.methods import LateExpansion, SequenceLayerDropout
        >>> shape = ModelShape.of(layers=12)
        >>> methods = LateExpansion(layers=3, at=0.6), SequenceLayerDropout()
        >>> short, long = ([method.plan(shape, steps) for method in methods] for steps in (100, 200))
        >>> [fingerprint(a, shape, 50) == fingerprint(b, shape, 50) for a, b in zip(short, long, strict=True)]
        [True, False]
    """
    found = blake2b(digest_size=16)
    for step in sorted({i * steps // samples for i in range(samples)} | {steps - 1}):
        found.update(digest_of(plan, step, shape))
    return found.hexdigest()


def _of_part(part: LayerPart, stack: StackShape) -> Iterator[Fact]:
    """Where a part is not the whole layer."""
    for what, kept, count in (("heads", part.heads, stack.heads), ("neurons", part.neurons, stack.neurons)):
        if kept is not None and len(kept) != count:
            yield what, kept
    scales = {"scale": part.factor(), "scale of the heads": part.head_scale, "scale of the neurons": part.neuron_scale}
    yield from ((what, scale) for what, scale in scales.items() if scale != 1)
    if part.sequences is not None:  # which rows are drawn differs by rank on purpose; what they are drawn from does not
        yield "share of the sequences", part.share
        yield "key of the sequences (seed, step, micro-step, stack)", tuple(part.sequences)


def _bytes(value: Any) -> bytes:
    """A number or a tuple of whole numbers as bytes: 1 and 1.0 are the same, 1 and (1,) are not."""
    if not isinstance(value, tuple):
        whole = int(value) == value
        return b"whole " + str(int(value)).encode() if whole else b"broken " + struct.pack("<d", value)
    try:
        return b"tuple " + np.asarray(value, dtype=np.int64).tobytes()
    except OverflowError:  # a seed can be larger
        return b"large " + " ".join(map(str, value)).encode()
