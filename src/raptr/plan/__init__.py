"""WHAT is trained WHEN. Pure: standard library and numpy.

A method is a spec (`RaPTr("6-8-10-12")`); `method.plan(shape, steps)` binds and validates it; the
plan answers, for any step in any order, which subnetwork is trained.
Reading order: ``schedule`` (sizes to stages), ``subnetwork``, ``protocol`` (what a method and a plan are), ``methods``.
"""

from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.cost import LayerCosts, StageCost, plan_cost, steps_for
from raptr.plan.digest import digest_of, facts_of, fingerprint
from raptr.plan.fields import check_fields, check_share
from raptr.plan.layer_part import WHOLE, LayerPart, LayerParts, SequenceKey
from raptr.plan.protocol import (
    Keep,
    Method,
    Plan,
    Trainable,
    Width,
    for_rows,
    lr_factor_of,
    skips_of,
    trained_part,
    width_of,
)
from raptr.plan.rng import random_numbers
from raptr.plan.schedule import Schedule, Stage, stage_at
from raptr.plan.shape import ModelShape, StackShape
from raptr.plan.subnetwork import Copy, Subnetwork

# isort: split
# Last, so that a method's file can import the names above from here, in raptr as anywhere else.
from raptr.plan.methods import METHODS, Full, RaPTr

__all__ = [
    "METHODS",
    "WHOLE",
    "Copy",
    "Full",
    "Keep",
    "LayerCosts",
    "LayerPart",
    "LayerParts",
    "Method",
    "ModelShape",
    "Plan",
    "RaPTr",
    "Schedule",
    "SequenceKey",
    "StackShape",
    "Stage",
    "StageCost",
    "Subnetwork",
    "Trainable",
    "TransitionLR",
    "Width",
    "check_fields",
    "check_share",
    "digest_of",
    "facts_of",
    "fingerprint",
    "for_rows",
    "lr_factor_of",
    "plan_cost",
    "random_numbers",
    "skips_of",
    "stage_at",
    "steps_for",
    "trained_part",
    "width_of",
]
