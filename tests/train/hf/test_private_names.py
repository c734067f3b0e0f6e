"""The private names of transformers' Trainer that raptr uses: all in one file, and each as it was when it was written.

A release of transformers that changes one of them fails here, by name, before anything subtler does. The list is typed
by hand from transformers 5.23; `make lowest` runs it with the oldest version that raptr allows.
"""

import ast
import inspect
import re
from pathlib import Path

import pytest
import transformers

import raptr
from raptr.train.hf import trainer as ours

ROOT = Path(raptr.__file__).parent
HOME = ROOT / "train" / "hf" / "trainer.py"

OVERRIDDEN = {
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "_save_checkpoint": ("model", "trial"),
    "_get_output_dir": ("trial",),
    "_save": ("output_dir", "state_dict"),
    "_get_grad_norm": ("model", "grad_norm"),
    "save_model": ("output_dir", "_internal_call"),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "prediction_step": ("model", "inputs", "prediction_loss_only", "ignore_keys"),
    "floating_point_ops": ("inputs",),
    "get_eval_dataloader": ("eval_dataset",),
    "log": ("logs", "start_time"),
    "evaluate": ("eval_dataset", "ignore_keys", "metric_key_prefix"),
}
"""Methods that a subclass of raptr's overrides, with the names of their parameters."""

CALLED = {"_get_num_items_in_batch": ("batch_samples", "device")}
"""Private methods that are called and not overridden."""

ATTRIBUTES = ("_tr_loss", "current_gradient_accumulation_steps")
"""Attributes of the training loop that are read or set."""


def parameters(method: object) -> tuple[str, ...]:
    """The names of a method's parameters, without the first."""
    return tuple(inspect.signature(method).parameters)[1:]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*OVERRIDDEN, *CALLED])
def test_the_signature_is_the_one_it_was_written_for(name: str) -> None:
    assert parameters(getattr(transformers.Trainer, name)) == (OVERRIDDEN | CALLED)[name]


def test_the_list_of_overridden_methods_is_complete() -> None:
    own = {
        name for kind in (ours.TaskTrainer, ours.RunTrainer) for name, value in vars(kind).items() if callable(value)
    }
    theirs = set(dir(transformers.Trainer)) - set(dir(object))
    assert sorted(own & theirs) == sorted(OVERRIDDEN)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_loop_still_has_the_attribute(name: str) -> None:
    assert re.search(rf"self\.{name}\b", inspect.getsource(transformers.Trainer))


def private_uses(text: str) -> set[str]:
    """Private attributes that a source names on the Trainer or through ``super()``."""
    names = {*OVERRIDDEN, *CALLED, *ATTRIBUTES}
    private = {name for name in names if name.startswith("_")} | {"current_gradient_accumulation_steps"}
    attributes = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    defined = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    return private & (attributes | defined)


def test_they_are_used_in_one_file() -> None:
    elsewhere = {
        str(file.relative_to(ROOT)): found
        for file in sorted(ROOT.rglob("*.py"))
        if file != HOME and (found := private_uses(file.read_text(encoding="utf-8")))
    }
    assert elsewhere == {}


def test_the_home_of_private_names_uses_all_of_them_and_no_other() -> None:
    text = HOME.read_text(encoding="utf-8")
    assert private_uses(text) == private_uses("\n".join(f"x.{name}" for name in (*OVERRIDDEN, *CALLED, *ATTRIBUTES)))
    theirs = {name for name in dir(transformers.Trainer) if name.startswith("_") and not name.startswith("__")}
    used = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert sorted(used & theirs) == sorted({name for name in (*OVERRIDDEN, *CALLED) if name.startswith("_")})
