"""Checkpoints are whole or not there, checked before use, set aside where damaged; a full disk loses none."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.runs import metrics, run, tiny
from helpers.stopping import interrupted, same_end
from raptr.errors import RaptrError
from raptr.train.callbacks.metrics import MetricsCallback
from raptr.train.resume import checkpoint as room
from raptr.train.resume.checkpoint import newest_checkpoint, remove_checkpoints

CONFIG = tiny(checkpoints__every=2)
FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "raptr.json")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run that was stopped after its checkpoints of steps 6 and 8."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(CONFIG, folder, cache, 12)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["checkpoint-6", "checkpoint-8"]
    return folder


@pytest.mark.slow
def test_the_manifest_names_every_other_file(stopped: Path) -> None:
    newest = stopped / "checkpoints" / "checkpoint-8"
    named = set(json.loads((newest / "raptr.json").read_text())["files"])
    assert named == {path.name for path in newest.iterdir()} - {"raptr.json"}
    assert named >= set(FILES) - {"raptr.json"}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_any_damage_to_any_file_is_noticed(name: str, damage: str, stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    where, measured = folder / "checkpoints", folder / "metrics.jsonl"
    found = newest_checkpoint(where, measured)
    assert found is not None
    assert found.step == 8  # control
    path = where / "checkpoint-8" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:-2], "emptied": b"", "flipped": flipped}[damage])
    before = {path.name: path.read_bytes() for path in (where / "checkpoint-8").iterdir()}
    with pytest.warns(UserWarning, match=f"checkpoint-8 is damaged .*{name}"):
        found = newest_checkpoint(where, measured)
    assert found is not None
    assert (found.step, found.path.name) == (6, "checkpoint-6")
    aside = where / "damaged-checkpoint-8"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before, "nothing of it is lost"
    remove_checkpoints(where)
    assert [path.name for path in where.iterdir()] == ["damaged-checkpoint-8"]


@pytest.mark.slow
def test_what_was_set_aside_before_is_kept_too(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    where = tmp_path / "run" / "checkpoints"
    (where / "damaged-checkpoint-8").mkdir()
    (where / "checkpoint-8" / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match="set aside as damaged-checkpoint-8-2"):
        newest_checkpoint(where, tmp_path / "run" / "metrics.jsonl")


@pytest.mark.slow
def test_a_checkpoint_that_was_being_written_is_none(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    where = tmp_path / "run" / "checkpoints"
    shutil.copytree(where / "checkpoint-8", where / room.PARTIAL / "checkpoint-9")
    found = newest_checkpoint(where, tmp_path / "run" / "metrics.jsonl")
    assert found is not None
    assert found.step == 8
    remove_checkpoints(where, but=found.path)
    assert [path.name for path in where.iterdir()] == ["checkpoint-8"]


@pytest.mark.slow
def test_it_appears_under_its_name_when_all_of_it_is_there(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    complete = room._complete

    def watched(partial: Path, place: Path, *rest: object) -> None:
        seen.append((place.name, place.exists()))
        assert {path.name for path in partial.iterdir()} >= set(FILES) - {"raptr.json"}
        complete(partial, place, *rest)  # type: ignore[arg-type]
        assert (place / "raptr.json").exists()

    monkeypatch.setattr(room, "_complete", watched)
    run(CONFIG, tmp_path / "run", cache)
    assert seen == [(f"checkpoint-{step}", False) for step in (2, 4, 6, 8, 9)]


@contextmanager
def quota(size: int) -> Iterator[None]:
    """No file may be larger: writing beyond fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The run, never stopped."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    run(tiny(), folder, cache)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 3_000, 30_000, 60_000])
def test_a_full_disk_stops_the_run_and_loses_no_checkpoint(
    size: int, reference: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        snapshot = MetricsCallback.snapshot

        def full(self: MetricsCallback) -> object:
            if self.progress.tokens == 6 * 4 * 16:
                kept.enter_context(quota(size))
            return snapshot(self)

        patch.setattr(MetricsCallback, "snapshot", full)
        with ExitStack() as kept, pytest.raises(RaptrError, match=r"of step 6 could not be written .*checkpoint-4\."):
            run(CONFIG, folder, cache)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert metrics(folder, "train")[-1]["step"] == 6
    if size == 30_000:  # what is left in the folder is the same for all sizes
        run(CONFIG, folder, cache)
        same_end(folder, reference)


def test_the_manifest_waits_for_the_last_file_of_every_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank writes its random state last, and rank 0 may be there long before the others."""

    def meet(mine: object) -> list[object]:
        (partial / "checkpoint-2" / "rng_state_1.pth").write_bytes(b"late")
        return [mine, None]

    monkeypatch.setattr(room, "gather_objects", meet)
    with room.written(tmp_path, 2, {}) as partial:
        (partial / "checkpoint-2").mkdir(parents=True)
        (partial / "checkpoint-2" / "rng_state_0.pth").write_bytes(b"early")
    manifest = json.loads((tmp_path / "checkpoint-2" / "raptr.json").read_text())
    assert set(manifest["files"]) == {"rng_state_0.pth", "rng_state_1.pth"}


def test_no_rank_goes_on_where_one_could_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "gather_objects", lambda mine: [mine, "No space left on device"])
    with (
        pytest.raises(RaptrError, match=r"step 2 could not be written \(No space left on device\)"),
        room.written(tmp_path, 2, {}) as partial,
    ):
        (partial / "checkpoint-2").mkdir(parents=True)
    assert not list(tmp_path.iterdir())
