"""What an objective means for this model, tried on the model itself before the first step.

Two short rows of tokens, one of them changed, say what a position sees; two sets of labels say what the model's own
loss compares and what it adds. So an architecture whose attention or loss is not what the objective expects is refused
or given raptr's loss, whatever its name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from raptr.errors import RaptrError
from raptr.messages import first_line
from raptr.objectives.masked import IGNORED

SHORT = 8
"""Tokens of a row; where a model does not take so few, the length that it is trained with."""

LEAK = 1e-4
"""A position that moves by more than this share of what moves most sees what was changed; float32 rounds far below."""


@dataclass(frozen=True, kw_only=True)
class LossRule:
    """How the loss of a model comes about.

    Attributes:
        shift: whether the objective compares the logits at t with the label at t + 1; otherwise with that at t.
        own_shift: the same of the model's own loss; None where that compares something else.
        adds: whether the model adds terms to its cross-entropy that do not depend on the labels, such as the loss of a
            router or a z-loss; they are its `auxiliary_loss`.
    """

    shift: bool
    own_shift: bool | None
    adds: bool

    @property
    def ours(self) -> bool:
        """Whether the loss is computed from the logits; otherwise the model's own loss is that already."""
        return self.adds or self.own_shift != self.shift

    @property
    def told(self) -> str:
        """What a user should know of it; empty where the model's loss is the objective's."""
        said = []
        if self.own_shift is None:
            said.append("its own loss is not the cross-entropy of its logits and the labels; raptr computes that")
        elif self.own_shift != self.shift:
            said.append("its own loss compares each position with the token that it is shown; raptr shifts the labels")
        if self.adds:
            said.append(
                "it adds auxiliary terms to its loss: they are averaged over the micro-batches of a step, recorded as "
                "auxiliary_loss, and no part of the validation loss"
            )
        return "; ".join(said)


def token_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, shift: bool, items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Return the cross-entropy of logits and labels, in float32.

        sum over labels that are not -100 of -log softmax(logits)[label]  /  items

    Args:
        logits: shape (B, T, V).
        labels: shape (B, T).
        shift: whether the logits at t are compared with the label at t + 1; otherwise with that at t.
        items: what the sum is divided by: the labels of a whole step; by default those of this batch.

    Example:
        >>> logits = torch.tensor([[[9.0, 0.0], [0.0, 9.0], [0.0, 0.0]]])
        >>> [round(token_loss(logits, torch.tensor([[1, 0, 1]]), shift=shift).item(), 3) for shift in (True, False)]
        [0.0, 6.231]
    """
    if shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
    flat, wanted = logits.flatten(0, 1).float(), labels.flatten().to(logits.device)
    reduction = "mean" if items is None else "sum"
    loss = cross_entropy(flat, wanted, ignore_index=IGNORED, reduction=reduction)
    return loss if items is None else loss / items


def auxiliary_loss(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, rule: LossRule) -> torch.Tensor:
    """Return what a model has added to the mean cross-entropy of a batch.

        loss - cross-entropy(logits, labels)

    Args:
        loss: the model's own, with the mean over the labels of a batch in it.
        logits: shape (B, T, V).
        labels: shape (B, T).
        rule: of a model whose own loss is known to be a cross-entropy.
    """
    assert rule.own_shift is not None
    return loss - token_loss(logits, labels, shift=rule.own_shift)


def try_objective(model: Any, objective: str, length: int, *, prefix: bool = False) -> LossRule:
    """Try a model on a short batch, in evaluation mode and without gradients; nothing of it is changed.

    Args:
        model: of `raptr.train.setup.model.build_model`, not yet attached.
        objective: causal, masked or denoising.
        length: tokens of a sequence that the model is trained on.
        prefix: whether a decoder-only model is given a mask of shape (B, 1, T, T), true where a position (third axis)
            sees another.

    Raises:
        RaptrError: a position depends on what it should predict, or not on what it is shown; or the model cannot be
            run on tokens alone. The message says what to set.
    """
    two_stacks = bool(getattr(model.config, "is_encoder_decoder", False))
    # BigBird and Pegasus' variant of it turn their block-sparse attention off for good when a sequence is short.
    lengths = (length,) if hasattr(model.config, "attention_type") or length <= SHORT else (SHORT, length)
    with _evaluated(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for tokens in lengths:
            try:
                trial = _Trial(model, tokens, prefix=prefix)
                return trial.encoder_decoder() if two_stacks else trial.of_one_stack(objective)
            except (RaptrError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a model says of a length, a mask or a missing input
                if tokens == lengths[-1]:
                    raise _cannot_run(model, error, prefix=prefix) from error
    raise AssertionError("no length was tried")


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")


def unbalanced(model_config: Any, rule: LossRule) -> str:
    """Return what to say of a mixture of experts whose loss does not balance them; empty for any other model."""
    experts = max((getattr(model_config, name, None) or 0 for name in _EXPERTS), default=0)
    if experts <= 1 or rule.adds:
        return ""
    said = "nothing in its loss keeps the load of its experts in balance"
    if getattr(model_config, "output_router_logits", None) is False:
        said += "; model.config.output_router_logits=true adds the router's auxiliary loss"
    return said


def _cannot_run(model: Any, error: Exception, *, prefix: bool) -> RaptrError:
    kind = type(model).__name__
    if prefix:
        return RaptrError(f"objective.attention is 'prefix', but {kind} takes no 4-D mask: {error} {_INSTEAD}")
    return RaptrError(
        f"{kind} cannot be tried on a short batch of tokens, so whether the objective means for it what it says is not "
        f"known: {first_line(error)} Give another architecture, or settings with which it runs on input_ids and labels."
    )


_INSTEAD = "Give objective.attention=causal, or a model with scaled dot-product attention."


class _Trial:
    """One length of a trial: two rows of tokens, and the same with another token in one place."""

    def __init__(self, model: Any, length: int, *, prefix: bool) -> None:
        self._model, self._kind, self._length = model, type(model).__name__, length
        special = {v for k, v in model.config.to_dict().items() if k.endswith("_token_id") and isinstance(v, int)}
        rows = len(model.get_input_embeddings().weight)
        known = [i for i in range(min(rows, 512)) if i not in special]
        self._known = torch.tensor(known, device=next(model.parameters()).device)
        self._tokens, self._decoded = (self._draw(2, length) for _ in range(2))
        self._place = length // 2
        self._mask: dict[str, torch.Tensor] = {}
        if prefix:  # the first half sees all of itself
            mask = torch.ones(length, length, dtype=torch.bool, device=self._known.device).tril()
            mask[: self._place, : self._place] = True
            self._mask = {"attention_mask": mask[None, None]}

    def _draw(self, *shape: int) -> torch.Tensor:
        return self._known[torch.randint(len(self._known), shape, device=self._known.device)]

    def _changed(self, tokens: torch.Tensor, place: int) -> torch.Tensor:
        """The tokens with another one in one place of each row."""
        changed = tokens.clone()
        at = torch.searchsorted(self._known, tokens[:, place])
        changed[:, place] = self._known[(at + 1) % len(self._known)]
        return changed

    def _run(self, tokens: torch.Tensor, **given: torch.Tensor) -> Any:
        mask = {name: value.expand(len(tokens), 1, -1, -1) for name, value in self._mask.items()}
        cache = {"use_cache": False} if hasattr(self._model.config, "use_cache") else {}
        return self._model(input_ids=tokens, **mask, **given, **cache)

    def _moved(self, first: torch.Tensor, *others: torch.Tensor, **given: torch.Tensor) -> list[torch.Tensor]:
        """By how much each position's logits differ from those of the first tokens, shape (T,) for each of the others.

        All run as one batch, where the same row has the same logits bit for bit.
        """
        rows = 1 + len(others)
        logits = self._run(torch.cat([first, *others]), **{k: torch.cat([v] * rows) for k, v in given.items()}).logits
        if logits.shape[:2] != (rows * len(first), first.shape[1]) or logits.ndim != 3:
            raise RaptrError(
                f"{self._kind} gives logits of shape {tuple(logits.shape)} for {rows * len(first)} rows of "
                f"{first.shape[1]} tokens, not one set for each token, so labels cannot be compared with them. "
                "Give another architecture."
            )
        before, *after = logits.float().chunk(rows)
        return [(each - before).abs().amax(dim=(0, 2)) for each in after]

    def of_one_stack(self, objective: str) -> LossRule:
        """A decoder-only model, or an encoder with a vocabulary head."""
        place = self._place
        late, early = self._moved(
            self._tokens, self._changed(self._tokens, place), self._changed(self._tokens, place // 2)
        )
        sees_later = bool(late[:place].max() > LEAK * late[place:].max())
        if objective == "masked":
            if not sees_later:
                raise RaptrError(
                    f"{self._kind} sees only what comes before a position, but masked tokens are predicted from both "
                    "sides; leave model.config.is_decoder=true out, or train it with objective.name=causal."
                )
            return self._rule(shift=False)
        if sees_later:
            raise RaptrError(f"{self._kind} sees the tokens that it should predict{self._instead(objective)}")
        if self._mask and not early[0] > LEAK * early.max():
            raise RaptrError(f"objective.attention is 'prefix', but {self._kind} does not take a 4-D mask. {_INSTEAD}")
        return self._rule(shift=True)

    def _instead(self, objective: str) -> str:
        if self._mask:
            return f": it does not take the 4-D mask of objective.attention='prefix'. {_INSTEAD}"
        if getattr(self._model.config, "is_decoder", None) is False:
            masked = ", or train it with objective.name=masked" if objective == "causal" else ""
            return f"; {objective} training needs a causal model: give model.config.is_decoder=true{masked}."
        return (
            f"; {objective} training needs a causal model{'' if objective == 'causal' else ' or an encoder-decoder'}."
        )

    def encoder_decoder(self) -> LossRule:
        """A decoder that predicts what it is shown next, from that before and from the encoder."""
        place = self._place
        before = self._run(self._tokens, decoder_input_ids=self._decoded).logits.float()
        (seen,) = self._moved(self._tokens, self._changed(self._tokens, place), decoder_input_ids=self._decoded)
        if not seen.max() > 0:
            raise RaptrError(
                f"the decoder of {self._kind} does not see its encoder's inputs; give another architecture."
            )
        later = self._run(self._tokens, decoder_input_ids=self._changed(self._decoded, place)).logits.float()
        moved = (later - before).abs().amax(dim=(0, 2))
        if moved[:place].max() > LEAK * moved[place:].max():
            raise RaptrError(
                f"the decoder of {self._kind} sees the tokens that it should predict; give another architecture."
            )
        shown = torch.ones_like(self._tokens)
        shown[:, -1] = 0
        padding = self._changed(self._tokens, self._length - 1)
        (hidden,) = self._moved(self._tokens, padding, attention_mask=shown, decoder_input_ids=self._decoded)
        if hidden.max() > LEAK * seen.max():
            raise RaptrError(
                f"the decoder of {self._kind} sees what attention_mask leaves out of its encoder's inputs; give "
                "another architecture."
            )
        return self._rule(shift=False, decoder_input_ids=self._decoded)

    def _rule(self, *, shift: bool, **given: torch.Tensor) -> LossRule:
        """What the model's own loss compares, tried in training mode, where it may add terms.

        The labels are the most and the least likely tokens of each position. A loss that compares as the objective
        does falls from the second to the first by the difference of the two cross-entropies, and no other one does.
        """
        logits = self._run(self._tokens, **given).logits[..., self._known]
        chosen = [self._known[pick] for pick in (logits.argmax(-1), logits.argmin(-1))]
        labels = [torch.cat([each[:, -1:], each[:, :-1]], dim=1) if shift else each for each in chosen]
        found, logits = [], []
        with _trained(self._model):
            for wanted in labels:
                torch.manual_seed(0)
                output = self._run(self._tokens, labels=wanted, **given)
                found.append(output.loss.float().mean())
                logits.append(output.logits)
        for own in (shift, not shift):
            expected = [token_loss(one, wanted, shift=own) for one, wanted in zip(logits, labels, strict=True)]
            if torch.isclose(found[1] - found[0], expected[1] - expected[0], rtol=1e-3, atol=1e-5):
                adds = not torch.isclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
                return LossRule(shift=shift, own_shift=own, adds=adds)
        return LossRule(shift=shift, own_shift=None, adds=False)


@contextmanager
def _trained(model: Any) -> Iterator[None]:
    """Training mode for a while; what a model counts in its buffers is as before."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    try:
        yield
    finally:
        model.eval()
        for name, buffer in model.named_buffers():
            if name in kept:
                buffer.copy_(kept[name])


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
