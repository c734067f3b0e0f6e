"""The section ``objective``: causal, masked or denoising (T5, UL2)."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from raptr.config.base import SECTION, Name
from raptr.errors import RaptrError
from raptr.objectives import KNOWN, UL2, Denoiser
from raptr.objectives.denoiser import Mode

_TOLERANCE = 1e-6


class CausalConfig(BaseModel):
    """Every token is predicted from those before it."""

    model_config = SECTION

    name: Literal["causal"] = "causal"


class MaskedConfig(BaseModel):
    """Masked tokens are predicted, as in BERT; ``whole_words`` masks all tokens of a word or none."""

    model_config = SECTION

    name: Literal["masked"] = "masked"
    rate: float = Field(default=0.15, gt=0, le=1)
    whole_words: bool = False


class DenoiserConfig(BaseModel):
    """A denoiser and its weight.

    Attributes:
        rate: the share of the tokens that is taken out.
        span: how many tokens a span has on average; null for one span at the end.
        mode: which mode token its inputs begin with, if mode tokens are used.
        weight: its share of the sequences.
    """

    model_config = SECTION

    rate: float
    span: float | None = None
    mode: Mode | None = None
    weight: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _is_a_denoiser(self) -> "DenoiserConfig":
        try:
            self.spec()
        except RaptrError as error:
            raise ValueError(str(error)) from error
        return self

    def spec(self) -> Denoiser:
        """The denoiser."""
        return Denoiser(rate=self.rate, span=self.span, mode=self.mode)


class DenoisingConfig(BaseModel):
    """Spans are taken out and predicted, by a mixture of denoisers, as in T5 and UL2.

    ``denoisers`` has a weight for each denoiser that is known by its name ({R3: 0.5, S: 0.5}), or the settings of one
    of the user's own. With an encoder-decoder ``data.sequence_length`` is the length of its inputs, and each
    micro-batch is of one denoiser; with a decoder-only model it is that of inputs and targets together.

    Attributes:
        denoisers: by name; without any, UL2's seven in equal shares.
        mode_tokens: whether inputs begin with [NLU], [NLG] or [S2S].
        sentinels: how many there are.
        attention: of a decoder-only model, "causal", or "prefix": inputs see each other in both directions, and
            no other example.
    """

    model_config = SECTION

    name: Literal["denoising"] = "denoising"
    denoisers: Annotated[dict[Name, DenoiserConfig], Field(min_length=1)] = {
        name: DenoiserConfig(rate=known.rate, span=known.span, mode=known.mode, weight=1 / len(UL2))
        for name, known in UL2.items()
    }
    mode_tokens: bool = True
    sentinels: int = Field(default=100, ge=1, le=10_000)
    attention: Literal["causal", "prefix"] = "causal"

    @field_validator("denoisers", mode="before")
    @classmethod
    def _a_weight_is_of_a_known_denoiser(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: _settings(name, value) for name, value in given.items()}

    @model_validator(mode="after")
    def _weights_sum_to_1(self) -> "DenoisingConfig":
        total = math.fsum(denoiser.weight for denoiser in self.denoisers.values())
        if abs(total - 1) > _TOLERANCE:
            told = ", ".join(f"{name} {denoiser.weight:g}" for name, denoiser in self.denoisers.items())
            raise ValueError(f"the weights of the denoisers sum to {total:g} ({told}); give shares that sum to 1")
        return self

    def specs(self) -> tuple[Denoiser, ...]:
        """The denoisers, in the order of the config."""
        return tuple(denoiser.spec() for denoiser in self.denoisers.values())

    def weights(self) -> tuple[float, ...]:
        """The share of each."""
        return tuple(denoiser.weight for denoiser in self.denoisers.values())


ObjectiveConfig = Annotated[CausalConfig | MaskedConfig | DenoisingConfig, Field(discriminator="name")]


def _settings(name: Any, value: Any) -> Any:
    """A number as the weight of a known denoiser; settings of a known one where others are not given."""
    known = KNOWN.get(name)
    of_known = {} if known is None else {"rate": known.rate, "span": known.span, "mode": known.mode}
    if isinstance(value, dict):
        return {**of_known, **value}
    if isinstance(value, int | float) and not isinstance(value, bool):
        if known is None:
            raise ValueError(
                f"{name} is not one of the denoisers that are known by their names ({', '.join(KNOWN)}); "
                "give its rate, span and weight"
            )
        return {**of_known, "weight": value}
    raise ValueError(
        f"{name} is {value!r}; expected its weight, a share like 0.5, or a section with its weight, rate, span and mode"
    )
