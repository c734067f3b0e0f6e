"""No code from checkpoints: what was put in a file's place is set aside, or refused, and never run."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as shards
import transformers
from safetensors.torch import load_file

from helpers.evil import BOTH, Evil, Save, nothing_ran, pickled, ran, saved  # noqa: F401
from helpers.runs import run, tiny
from helpers.stopping import interrupted, same_end
from raptr.errors import RaptrError
from raptr.train.resume.checkpoint import newest_checkpoint
from raptr.train.resume.safe_load import NotPlain, check_lists, tensors_only

CONFIG = tiny(checkpoints__every=4)
UNPICKLED = ("optimizer.pt", "rng_state.pth", "scheduler.pt")
FILES = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "trainer_state.json"),
    *UNPICKLED,
)
"""Of a checkpoint, beside its manifest."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run that was stopped, with checkpoints of steps 4 and 8; and the same that was not."""
    root = tmp_path_factory.mktemp("unpickled")
    interrupted(CONFIG, root / "run", cache, 12)
    run(CONFIG, root / "reference", cache)
    return root


def digest(content: bytes) -> str:
    """The hash of which a manifest has one for each file and one for itself."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sealed(checkpoint: Path) -> None:
    """Write the manifest again, as if its files had always been these."""
    manifest = json.loads((checkpoint / "raptr.json").read_text())
    del manifest["blake2b"]
    manifest["files"] = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "blake2b": digest(path.read_bytes())}
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name != "raptr.json"
    }
    own = digest(json.dumps(manifest, sort_keys=True).encode())
    (checkpoint / "raptr.json").write_text(json.dumps({**manifest, "blake2b": own}))


@BOTH
def test_what_is_put_in_a_file_s_place_would_run(save: Save, tmp_path: Path) -> None:
    save(tmp_path / "x")
    if save is pickled:
        pickle.loads((tmp_path / "x").read_bytes())
    else:
        torch.load(tmp_path / "x", weights_only=False)
    assert ran()


@pytest.mark.slow
def test_a_checkpoint_and_a_model_are_tensors_and_text(stopped: Path) -> None:
    checkpoint = stopped / "run" / "checkpoints" / "checkpoint-8"
    assert {path.name for path in checkpoint.iterdir()} == {*FILES, "raptr.json"}
    for path in checkpoint.iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            assert load_file(path)
        else:
            with transformers.trainer_pt_utils.safe_globals():  # numpy's arrays
                assert torch.load(path, weights_only=True)
    assert {path.suffix for path in (stopped / "reference" / "model").iterdir()} == {".json", ".safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_replaced_sets_its_checkpoint_aside(name: str, stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped / "run", folder)
    saved(folder / "checkpoints" / "checkpoint-8" / name)
    with pytest.warns(UserWarning, match=f"checkpoint-8 is damaged .*{name}"):
        found = newest_checkpoint(folder / "checkpoints", folder / "metrics.jsonl")
    assert found is not None
    assert found.step == 4


@pytest.mark.slow
def test_all_of_them_replaced_change_nothing(stopped: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped / "run", folder)
    for name in FILES:
        pickled(folder / "checkpoints" / "checkpoint-8" / name)
    with pytest.warns(UserWarning, match="checkpoint-8 is damaged"):
        run(CONFIG, folder, cache)
    shutil.rmtree(folder / "checkpoints")  # what was set aside
    same_end(folder, stopped / "reference")


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", [*UNPICKLED, "model.safetensors", "trainer_state.json"])
def test_a_file_that_was_replaced_together_with_its_hash_is_not_run(
    name: str, save: Save, stopped: Path, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped / "run", folder)
    checkpoint = folder / "checkpoints" / "checkpoint-8"
    save(checkpoint / name)
    sealed(checkpoint)
    found = newest_checkpoint(folder / "checkpoints", folder / "metrics.jsonl")
    assert found is not None
    assert found.step == 8, "its manifest says that it is whole"
    if name in UNPICKLED:
        with pytest.raises(RaptrError, match=r"checkpoint-8 holds .* from the checkpoint before it"):
            run(CONFIG, folder, cache)
    else:  # what is no tensors and no JSON
        with pytest.raises(Exception, match=r"header|utf-8|Expecting value"):
            run(CONFIG, folder, cache)
    if name == "optimizer.pt":  # as the message says
        shutil.rmtree(checkpoint)
        run(CONFIG, folder, cache)
        same_end(folder, stopped / "reference")


# Checkpoints in shards


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A checkpoint of torch's own format, as FSDP2 writes it, with something that is no tensor."""
    state = {"w": torch.ones(3), "b": torch.ones(2, dtype=torch.bfloat16), "group": {"betas": (0.9, 0.95), "lr": 1e-3}}
    shards.save(state, checkpoint_id=tmp_path / "optimizer_0", no_dist=True)
    return tmp_path


def test_the_list_of_a_checkpoint_in_shards_is_read(sharded: Path) -> None:
    check_lists(sharded)
    found = {"w": torch.zeros(3), "b": torch.zeros(2, dtype=torch.bfloat16), "group": {"betas": None, "lr": None}}
    with tensors_only("this"):
        shards.load(found, checkpoint_id=sharded / "optimizer_0", no_dist=True)
    assert found["group"] == {"betas": (0.9, 0.95), "lr": 1e-3}
    assert torch.equal(found["w"], torch.ones(3))  # type: ignore[arg-type]


@BOTH
def test_a_list_that_is_more_than_that_is_not_run(save: Save, sharded: Path) -> None:
    save(sharded / "optimizer_0" / ".metadata")
    with pytest.raises(NotPlain, match=r"optimizer_0/\.metadata is no list of tensors"):
        check_lists(sharded)


@pytest.mark.slow
def test_a_checkpoint_with_such_a_list_is_set_aside(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped / "run", folder)
    (folder / "checkpoints" / "checkpoint-8" / "optimizer_0").mkdir()
    pickled(folder / "checkpoints" / "checkpoint-8" / "optimizer_0" / ".metadata")
    sealed(folder / "checkpoints" / "checkpoint-8")
    with pytest.warns(UserWarning, match="checkpoint-8 is damaged .*asks for builtins.exec"):
        newest_checkpoint(folder / "checkpoints", folder / "metrics.jsonl")


def test_a_value_in_shards_that_is_more_than_a_value_is_not_run(tmp_path: Path) -> None:
    shards.save({"w": torch.ones(3), "group": Evil()}, checkpoint_id=tmp_path, no_dist=True)
    check_lists(tmp_path)  # the list is in order
    with pytest.raises(RaptrError, match="this holds something"), tensors_only("this"):
        shards.load({"w": torch.zeros(3), "group": None}, checkpoint_id=tmp_path, no_dist=True)
    assert not ran()
    shards.load({"w": torch.zeros(3), "group": None}, checkpoint_id=tmp_path, no_dist=True)
    assert ran(), "torch by itself runs it"
