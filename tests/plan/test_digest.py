"""Digests of what a step trains: the same for the same work, another for any other."""

from dataclasses import dataclass, field

import pytest

from raptr.plan import Copy, LayerPart, ModelShape, RaPTr, SequenceKey, Subnetwork, digest_of, facts_of

SHAPE = ModelShape.of(layers=3, heads=4, neurons=6)
KEY = SequenceKey(seed=2**63, step=0)


@dataclass
class Fixed:
    """One subnetwork for ever; its repr says more than what is trained."""

    part: LayerPart = field(default_factory=LayerPart)
    layers: tuple[int, ...] = (0, 2)
    copies: tuple[Copy, ...] = ()
    factor: float = 1.0
    note: str = ""

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        parts = ((self.part,) * len(self.layers),)
        return Subnetwork((self.layers,), parts)

    def transition(self, step: int) -> tuple[Copy, ...]:
        return self.copies

    def lr_factor(self, step: int) -> float:
        return self.factor


SAME = [
    (Fixed(), Fixed(note="written otherwise")),
    (Fixed(LayerPart(heads=(0, 1, 2, 3))), Fixed()),
    (Fixed(LayerPart(neurons=tuple(range(6)), scale=2)), Fixed(LayerPart(scale=2.0))),
]
OTHER = [
    Fixed(layers=(0, 1)),
    Fixed(layers=(0, 1, 2)),
    Fixed(LayerPart(heads=(0, 1))),
    Fixed(LayerPart(heads=(0, 2))),
    Fixed(LayerPart(neurons=(0, 1))),
    Fixed(LayerPart(scale=1.5)),
    Fixed(LayerPart(head_scale=1.5)),
    Fixed(LayerPart(neuron_scale=1.5)),
    Fixed(LayerPart(share=0.5, sequences=KEY)),
    Fixed(LayerPart(share=0.5, sequences=SequenceKey(seed=2**63 + 1, step=0))),
    Fixed(LayerPart(share=0.25, sequences=KEY)),
    Fixed(copies=(Copy(source=0, target=1),)),
    Fixed(copies=(Copy(source=0, target=1, reset=True),)),
    Fixed(copies=(Copy(source=0, target=1), Copy(source=0, target=2))),
    Fixed(factor=0.5),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_work_has_the_same_digest(one: Fixed, other: Fixed) -> None:
    assert digest_of(one, 0, SHAPE) == digest_of(other, 0, SHAPE)


def test_any_other_work_has_another_digest() -> None:
    assert len({digest_of(plan, 0, SHAPE) for plan in (Fixed(), *OTHER)}) == 1 + len(OTHER)


def test_what_rows_are_drawn_is_no_part_of_it() -> None:
    part = LayerPart(share=0.5, sequences=KEY)
    assert part.rows(2, 8, rank=0) != part.rows(2, 8, rank=1), "the check needs ranks that draw different rows"
    names = [name for name, _ in facts_of(Fixed(part), 0, SHAPE)]
    assert "step 0, share of the sequences of layer 2 of 'layers'" in names


def test_micro_steps_each_have_their_own() -> None:
    plan = RaPTr("2-3", redraw="micro_step", fixed=()).plan(SHAPE, 40)
    assert any(plan.subnetwork(step) != plan.subnetwork(step, micro=1) for step in range(20))
    assert all(digest_of(plan, step, SHAPE) != digest_of(plan, step, SHAPE, micro_steps=2) for step in range(20))
