"""WHAT is trained WHEN. Pure: standard library and numpy.

A method is a spec (`RaPTr("6-8-10-12")`); `method.plan(shape, steps)` binds and validates it; the
plan answers, for any step in any order, which subnetwork is trained.
"""

from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.cost import LayerCosts, StageCost, plan_cost, steps_for
from raptr.plan.digest import digest_of, facts_of, fingerprint
from raptr.plan.layer_part import WHOLE, LayerPart, LayerParts, SequenceKey
from raptr.plan.methods import METHODS, Full, RaPTr
from raptr.plan.protocol import Keep, Method, Plan, Trainable, Width, lr_factor_of, trained_part, width_of
from raptr.plan.schedule import Schedule, Stage
from raptr.plan.shape import ModelShape, StackShape
from raptr.plan.subnetwork import Copy, Subnetwork

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
    "digest_of",
    "facts_of",
    "fingerprint",
    "lr_factor_of",
    "plan_cost",
    "steps_for",
    "trained_part",
    "width_of",
]
