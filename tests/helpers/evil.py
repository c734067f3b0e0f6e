"""Code that is noticed when it is run, in every form in which data can hold some."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

MARK = "RAPTR_TEST_CODE_RAN"
"""A variable of this process's environment, which such code sets."""

SCRIPT = f"""
import os
os.environ[{MARK!r}] = "1"
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig): model_type = "own"
class OwnModel(LlamaForCausalLM): config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""
"""A Python file with a configuration, a model and a tokenizer of its own."""


class Evil:
    """Whoever unpickles it runs its code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.environ[{MARK!r}] = '1'",)


def pickled(path: Path) -> None:
    """A plain pickle."""
    path.write_bytes(pickle.dumps(Evil()))


def saved(path: Path) -> None:
    """What torch.save makes of it."""
    with path.open("wb") as file:
        torch.save(Evil(), file)


def ran() -> bool:
    """Whether any of it was run since this was asked last."""
    return os.environ.pop(MARK, None) is not None


Save = Callable[[Path], None]
BOTH = pytest.mark.parametrize("save", [pickled, saved], ids=["pickle", "torch"])


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    """At the end of every test of a file that imports this, no code from data was run."""
    ran()
    yield
    assert not ran(), "code from data was run"
