"""What a decoder-only model attends to, looked at in the model itself: four tokens, one of them changed."""

from typing import Any

import torch

from raptr.errors import RaptrError


def check_attention(model: Any, *, prefix: bool) -> None:
    """Refuse a model that sees what it should predict, or that does not see what it is shown.

    Args:
        model: of a language model that takes ``input_ids``; it is not changed.
        prefix: whether it is given a mask of shape (B, 1, T, T), true where a position (third axis) sees another.

    Raises:
        RaptrError: a position's output depends on a later one that it must not see, or not on one that it may.
    """
    kind = type(model).__name__
    plain = torch.tensor([[1, 2, 3, 4]])
    middle, last = torch.tensor([[1, 0, 3, 4]]), torch.tensor([[1, 2, 3, 0]])
    mask = None
    if prefix:
        mask = torch.ones(4, 4, dtype=torch.bool).tril()
        mask[:2, :2] = True
        mask = mask[None, None]
    try:
        (before, after_middle, after_last) = (_logits(model, ids, mask) for ids in (plain, middle, last))
    except Exception as error:  # whatever a model says of a mask of a shape that it does not take
        if not prefix:
            raise
        raise RaptrError(
            f"objective.attention is 'prefix', but {kind} takes no 4-D mask: {error} {_INSTEAD}"
        ) from error
    if not torch.allclose(before[:, :3], after_last[:, :3], atol=1e-5):
        raise RaptrError(
            f"{kind} sees the tokens that it should predict"
            + (
                f": it does not take the 4-D mask of objective.attention='prefix'. {_INSTEAD}"
                if prefix
                else "; denoising needs an encoder-decoder, or a causal model (model.config.is_decoder=true in some)."
            )
        )
    if prefix and torch.allclose(before[:, 0], after_middle[:, 0], atol=1e-7):
        raise RaptrError(f"objective.attention is 'prefix', but {kind} does not take a 4-D mask. {_INSTEAD}")


_INSTEAD = "Give objective.attention=causal, or a model with scaled dot-product attention."


def _logits(model: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            given = {} if mask is None else {"attention_mask": mask}
            logits: torch.Tensor = model(input_ids=ids, use_cache=False, **given).logits
            return logits
    finally:
        model.train(was_training)
