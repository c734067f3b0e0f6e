"""What a run with the denoising objective trains on, and what each of its steps costs."""

from dataclasses import dataclass
from typing import Any

from raptr.config import DenoisingConfig, RunConfig
from raptr.data import (
    Turns,
    ValidationData,
    WindowCollator,
    WindowData,
    WindowValidation,
    turns_of,
)
from raptr.data.samples.mixture import Mixture
from raptr.data.tokens.special import marks_of
from raptr.errors import RaptrError
from raptr.model import count_flops
from raptr.objectives import Denoising, Form, Packed, Pair, packed, pair
from raptr.plan import LayerCosts
from raptr.plan.cost import mean_costs
from raptr.train.setup.model import is_encoder_decoder


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """The windows of a run.

    Attributes:
        settings: the config's objective.
        forms: the shape of every denoiser.
        turns: which window is of which.
        rows: windows of a micro-batch.
        micro_steps: of a step.
    """

    settings: DenoisingConfig
    forms: tuple[Form, ...]
    turns: Turns
    rows: int
    micro_steps: int

    @property
    def alike(self) -> bool:
        """Whether a micro-batch is of one denoiser: in an encoder-decoder, where they differ in shape."""
        return isinstance(self.forms[0], Pair)

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return max(form.tokens for form in self.forms)

    def training_data(self, mixture: Mixture, seed: int, samples: int) -> WindowData:
        """The windows of a run, cut from stretches."""
        return WindowData(mixture, self.turns, seed=seed, samples=samples, rows=self.rows, alike=self.alike)

    def validation_data(self, sequences: ValidationData) -> WindowValidation:
        """The validation windows of a source, every denoiser in its share."""
        return WindowValidation(sequences, self.turns, tuple(form.predicted for form in self.forms))

    def collator(self, seed: int, tokenizer: Any, model_config: Any) -> WindowCollator:
        """Makes the model's inputs and labels out of windows."""
        start = getattr(model_config, "decoder_start_token_id", None)
        marks = marks_of(tokenizer, self.settings.sentinels, self.settings.mode_tokens, start)
        prefix = self.settings.attention == "prefix"
        return WindowCollator(Denoising(forms=self.forms, marks=marks, seed=seed, prefix=prefix))

    def kinds(self, step: int, micro: int, seed: int) -> tuple[int, ...]:
        """The denoiser of every window of a micro-step."""
        turn = step * self.micro_steps + micro
        if self.alike:
            return (self.turns.at(turn, seed)[0],) * self.rows
        return tuple(self.turns.at(turn, seed, row)[0] for row in range(self.rows))

    def tokens(self, step: int, micro: int, seed: int) -> int:
        """Document tokens of a micro-step."""
        return sum(self.turns.sizes[kind] for kind in self.kinds(step, micro, seed))


def denoise(config: RunConfig, model_config: Any, rows: int, micro_steps: int) -> Denoised:
    """The windows of a config.

    Raises:
        RaptrError: sequences too short for a denoiser, or attention that the layout does not have.
    """
    settings = _settings(config)
    forms = forms_of(config, is_encoder_decoder(model_config))
    turns = turns_of(settings.weights(), [form.tokens for form in forms])
    return Denoised(settings=settings, forms=forms, turns=turns, rows=rows, micro_steps=micro_steps)


def forms_of(config: RunConfig, encoder_decoder: bool) -> tuple[Form, ...]:
    """The shape of every denoiser of a config.

    Raises:
        RaptrError: sequences too short for a denoiser, or attention that the layout does not have.
    """
    settings, forms = _settings(config), list[Form]()
    if encoder_decoder and settings.attention == "prefix":
        raise RaptrError(
            "objective.attention is 'prefix', but an encoder-decoder's encoder sees its inputs in both directions "
            "anyway; leave it out, or give a decoder-only model."
        )
    for name, denoiser in zip(settings.denoisers, settings.specs(), strict=True):
        length, sentinels, mode = config.data.sequence_length, settings.sentinels, settings.mode_tokens
        try:
            if encoder_decoder:
                forms.append(pair(denoiser, length, sentinels=sentinels, mode=mode))
            else:
                forms.append(packed(denoiser, length, sentinels=sentinels, mode=mode))
        except RaptrError as error:
            raise RaptrError(f"objective.denoisers.{name}: {error}") from error
    return tuple(forms)


def denoising_costs(config: RunConfig, model: Any) -> tuple[LayerCosts, ...]:
    """FLOPs of a sequence: the mean over the denoisers first, then those of each."""
    counted: dict[tuple[int, int | None], LayerCosts] = {}
    each = []
    for form in forms_of(config, is_encoder_decoder(model.config)):
        length, targets = (form.length, None) if isinstance(form, Packed) else (form.inputs, form.targets)
        if (length, targets) not in counted:
            counted[length, targets] = count_flops(model, length, target_length=targets)
        each.append(counted[length, targets])
    return (mean_costs(each, _settings(config).weights()), *each)


def _settings(config: RunConfig) -> DenoisingConfig:
    assert isinstance(config.objective, DenoisingConfig)
    return config.objective
