"""A denoiser of UL2: how much of a text is taken out, in how long spans, and what the model is told of it."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from raptr.errors import RaptrError

Mode = Literal["NLU", "NLG", "S2S"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""Of R, X and S denoisers; the mode token of "NLU" is ``[NLU]``."""


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A rule that takes spans out of a text.

    Of n tokens, N = round(rate n) are taken out, in S = round(N / span) spans (a half goes to the even number);
    without ``span`` in one span at the end: a prefix language model, and with ``rate`` 1, which leaves nothing
    before it, a causal one.

    Args:
        rate: the share of the tokens that is taken out, above 0; 1 only without ``span``.
        span: how many tokens a span has on average; None for one span at the end.
        mode: which mode token stands before the inputs, where mode tokens are used; None for none.

    Raises:
        RaptrError: a rate, span or mode that no denoiser has.

    Example:
        >>> Denoiser(rate=0.15, span=3).counts(568)
        (85, 28)

    Source:
        "UL2: Unifying Language Learning Paradigms", arXiv 2205.05131, section 3.1; spans as in "Exploring the Limits
        of Transfer Learning with a Unified Text-to-Text Transformer", arXiv 1910.10683, section 3.1.4.
    """

    rate: float
    span: float | None = None
    mode: Mode | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or (self.rate == 1 and self.span is not None):
            raise RaptrError(
                f"rate is {self.rate}; expected a share of the tokens above 0 and below 1, like 0.15 "
                "(1, which is causal language modelling, only without span)."
            )
        if self.span is not None and not 1 <= self.span < math.inf:
            raise RaptrError(f"span is {self.span}; expected a mean length of at least 1 token, or none.")
        if self.span is not None and self.rate / self.span > 1 - self.rate:
            raise RaptrError(
                f"rate {self.rate} in spans of {self.span} leaves fewer tokens than there are spans, and each span "
                "needs one before it; give longer spans, or a lower rate."
            )
        if self.mode is not None and self.mode not in MODES:
            raise RaptrError(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}, or none.")

    def counts(self, tokens: int) -> tuple[int, int]:
        """How many of ``tokens`` are taken out, and in how many spans; 0 spans where there is no room for one."""
        if self.rate == 1:
            return tokens, min(tokens, 1)
        noise = round(self.rate * tokens)
        spans = min(noise, 1) if self.span is None else round(noise / self.span)
        return noise, spans if spans <= min(noise, tokens - noise) else 0


UL2: dict[str, Denoiser] = {
    "R3": Denoiser(span=3, rate=0.15, mode="NLU"),
    "R8": Denoiser(span=8, rate=0.15, mode="NLU"),
    "S": Denoiser(rate=0.25, mode="S2S"),
    "X3": Denoiser(span=3, rate=0.5, mode="NLG"),
    "X8": Denoiser(span=8, rate=0.5, mode="NLG"),
    "X64": Denoiser(span=64, rate=0.15, mode="NLG"),
    "X64-50": Denoiser(span=64, rate=0.5, mode="NLG"),
}
"""The seven of the paper's table of denoisers."""

KNOWN: dict[str, Denoiser] = {**UL2, "C": Denoiser(rate=1.0, mode="S2S")}
"""Those, and causal language modelling, which later mixtures have beside them."""
