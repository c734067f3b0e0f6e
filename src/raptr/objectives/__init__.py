"""Tokens -> inputs and labels. numpy only; nothing is drawn that is not a function of its place."""

from raptr.objectives.causal import causal
from raptr.objectives.denoiser import KNOWN, UL2, Denoiser
from raptr.objectives.denoising import Denoising, Marks, decoder_only, encoder_decoder
from raptr.objectives.forms import Form, Packed, Pair, packed, pair
from raptr.objectives.masked import masked, most_predictions, taken_apart
from raptr.objectives.protocol import Objective
from raptr.objectives.rebuild import rebuild, restore

__all__ = [
    "KNOWN",
    "UL2",
    "Denoiser",
    "Denoising",
    "Form",
    "Marks",
    "Objective",
    "Packed",
    "Pair",
    "causal",
    "decoder_only",
    "encoder_decoder",
    "masked",
    "most_predictions",
    "packed",
    "pair",
    "rebuild",
    "restore",
    "taken_apart",
]
