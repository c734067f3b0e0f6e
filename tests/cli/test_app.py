"""The command line, as a user meets it: what it prints, and how it refuses bad input."""

import gzip
import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.runs import TINY, contents
from helpers.stopping import after_each_line
from raptr.cli import app as cli
from raptr.errors import RaptrError


def command(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run `raptr` in this process: its exit code and everything it printed."""
    monkeypatch.setattr(sys, "argv", ["raptr", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture
def raptr_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> Any:
    """`raptr` in an empty folder, with the shared cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAPTR_CACHE", str(cache))

    def call(*arguments: str) -> tuple[int, str]:
        return command(*arguments, capsys=capsys, monkeypatch=monkeypatch)

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The tiny run, as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_plan_without_a_model(raptr_command: Any) -> None:
    code, printed = raptr_command("plan", "--layers", "12", "--schedule", "6-8-10-12")
    assert code == 0
    assert "75.0% of full training, 1.333x fewer" in printed
    assert [line.split()[-1] for line in printed.splitlines() if line.strip()[:1].isdigit()] == [
        "50.0%",
        "66.7%",
        "83.3%",
        "100.0%",
    ]
    assert (
        "1.200x" in raptr_command("plan", "--layers", "24", "--schedule", "12-16-20-24", "--lengths", "proportional")[1]
    )


@pytest.mark.parametrize(
    ("options", "share"),
    [
        (["midas"], "75.0%"),  # 3, 6, 9, 12 of 12 layers for 1, 2, 3, 4 tenths of the run
        (["midas", "alpha=2"], "83.3%"),  # for 1, 4, 9, 16 thirtieths
        (["layerdrop", "rate=0.3"], "70.0%"),
        (["width_raptr"], "75.0%"),
        (["late_expansion", "layers=0", "new=fresh"], "20.0%"),
    ],
)
def test_plan_of_any_method_without_a_model(raptr_command: Any, options: list[str], share: str) -> None:
    code, printed = raptr_command("plan", "--layers", "12", "--steps", "3000", "--method", *options)
    assert code == 0
    assert f"layer FLOPs: {share} of full training" in printed


def test_plan_options_reach_the_schedule(raptr_command: Any) -> None:
    base = ("plan", "--layers", "12", "--steps", "1000")
    assert "1 to 999" not in raptr_command(*base)[1]
    printed = raptr_command(*base, "--warmup", "10%", "--lengths", "10%-20%-30%-40%")[1]
    for span in ("0 to 99", "100 to 189", "190 to 369", "370 to 639", "640 to 999"):
        assert span in printed
    assert "0 to 699" in raptr_command(*base, "--lengths", "700-100-100-100")[1]
    assert raptr_command(*base, "--fixed", "0,1,2,3,4,5,6")[0] == 2, "six layers cannot hold seven fixed ones"
    assert raptr_command(*base, "--fixed", "")[0] == 0


@pytest.mark.parametrize(("layers", "sizes"), [(6, "3 4 5 6"), (12, "6 8 10 12"), (24, "12 16 20 24")])
def test_plan_without_a_schedule_has_the_papers_at_any_depth(raptr_command: Any, layers: int, sizes: str) -> None:
    code, printed = raptr_command("plan", "--layers", str(layers))
    assert code == 0
    rows = [line.split() for line in printed.splitlines() if line.strip()[:1].isdigit()]
    assert [row[-2] for row in rows] == sizes.split()
    assert ("RaPTr 6-8-10-12" in printed) == (layers == 12)
    assert f"1,000 steps, {layers} layers\n" in "\n".join(line.rstrip() for line in printed.splitlines())


@pytest.mark.slow
def test_without_a_config_the_demo_is_meant(raptr_command: Any) -> None:
    assert raptr_command("plan")[1] == raptr_command("plan", "demo")[1]
    assert "6-8-10-12: 50 steps" in raptr_command("plan", "training.max_steps=50")[1]


def test_interruption_says_what_it_means(
    raptr_command: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raptr.compare.workers.train", interrupt)
    code, printed = raptr_command("compare", str(config))
    assert code == 130
    assert "the same command goes on where it was" in printed


@pytest.mark.slow
def test_parts_of_a_comparison_and_tuning(raptr_command: Any, config: Path, tmp_path: Path) -> None:
    shared = ("compare", str(config), "--seeds", "1", "--sweep", "training.learning_rate=1e-4,1e-2")
    code, printed = raptr_command(*shared, "--only", "sweep")
    assert code == 0
    assert "Other runs of the comparison are not finished" in printed
    chosen = json.loads((tmp_path / "runs" / "tiny" / "sweep.json").read_text())["chosen"]
    assert chosen["full"] == {"training.learning_rate": 1e-2}
    assert raptr_command(*shared, "--only", "full-seed0")[0] == 0
    code, printed = raptr_command(*shared)
    assert code == 0
    assert "run 5/6 full-seed0: finished before" in printed
    assert "too short" in printed or "one seed" in printed
    code, printed = raptr_command(*shared, "--only", "full-seed3")
    assert code == 2
    assert "--only 'full-seed3' is not a run of this comparison" in printed


@pytest.mark.slow
def test_equal_seconds(raptr_command: Any, config: Path, tmp_path: Path) -> None:
    wide = ("model.config.hidden_size=128", "model.config.intermediate_size=512", "data.sequence_length=64")
    code, printed = raptr_command("compare", str(config), *wide, "--seeds", "1", "--budget", "seconds")
    assert code == 0, printed
    steps = {
        name: json.loads((tmp_path / "runs" / "tiny" / f"{name}-seed0" / "result.json").read_text())["steps"]
        for name in ("full", "raptr")
    }
    assert steps["full"] == 9 < steps["raptr"]


@pytest.mark.slow
def test_stopped_run_goes_on(raptr_command: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(line: Any) -> None:
        if line.step == 5:
            raise KeyboardInterrupt

    arguments = ("train", str(config), "checkpoints.every=2")
    with monkeypatch.context() as patch:
        after_each_line(patch, interrupted)
        code, printed = raptr_command(*arguments)
    assert code == 130
    assert "the same command goes on from the newest checkpoint" in printed
    code, printed = raptr_command(*arguments)
    assert code == 0
    assert "goes on after step 4" in printed


def test_plan_of_a_config_knows_total_flops_and_trains_nothing(raptr_command: Any, tmp_path: Path) -> None:
    code, printed = raptr_command("plan", "demo")
    assert code == 0
    assert "total FLOPs of full" in printed
    assert not list(tmp_path.iterdir())


def test_data_describes(raptr_command: Any, config: Path) -> None:
    code, printed = raptr_command("data", str(config))
    assert code == 0
    for word in ("builtin:python", "content hash", "training sequences", "320"):
        assert word in printed
    line = "preparing builtin:python: reading, training a tokenizer of 320 entries, tokenizing; what is stored already"
    assert line in printed


def test_preparing_is_said_before_it_is_done(
    raptr_command: Any, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where nothing is a terminal, as here."""

    def prepare(*_: Any, **__: Any) -> None:
        raise RaptrError("it has begun")

    monkeypatch.setattr("raptr.train.task.prepare", prepare)
    (tmp_path / "least.yaml").write_text("name: hi\ntraining: {max_steps: 3}\n")
    whole = "builtin:python (all of it, which takes minutes; data.max_bytes sets a limit)"
    for verb in ("data", "train", "compare"):
        for file, named in (("tiny.yaml", "builtin:python"), ("least.yaml", whole)):
            said = raptr_command(verb, file)[1].splitlines()
            assert said[0].startswith(f"preparing {named}: reading, training a tokenizer of ")
            assert said[1:] == ["raptr: it has begun"]
    assert raptr_command("train", "least.yaml", "data.sources={a: {path: x}, b: {path: y}}", "data.tokenizer=gpt2")[
        1
    ].startswith("preparing x, y: reading, tokenizing with gpt2; ")


@pytest.mark.slow
def test_train_writes_model_and_report(raptr_command: Any, config: Path, tmp_path: Path) -> None:
    code, printed = raptr_command("train", str(config), "training.max_steps=4")
    assert code == 0
    assert "validation loss of the full model" in printed
    folder = tmp_path / "runs" / "tiny"
    assert (folder / "model" / "model.safetensors").exists()
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_compare_prints_the_table_and_writes_the_report(raptr_command: Any, config: Path, tmp_path: Path) -> None:
    arguments = ("compare", str(config), "--seeds", "2", "--methods", "full,raptr", "--budget", "flops")
    code, printed = raptr_command(*arguments)
    assert code == 0
    summary = json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())
    for name, entry in summary["methods"].items():
        assert f"{entry['mean']:.3f}" in printed, name
        assert entry["verdict"] in " ".join(printed.split())
    assert "report: runs/tiny/report.html" in printed
    assert json.loads((tmp_path / "runs/tiny/raptr-seed1/run.json").read_text())["command"].startswith("raptr compare")
    assert raptr_command("report", "runs/tiny")[0] == 0


def text_files(folder: Path) -> dict[str, Path]:
    """Sources that cannot be read, by what is wrong with them."""
    paths = {name: folder / name for name in ("empty.txt", "broken.jsonl", "cut.txt.xz", "cut.txt.gz", "latin.txt")}
    paths["empty.txt"].write_text("")
    paths["broken.jsonl"].write_text('{"text": "fine"}\n{"text": \n')
    whole = ("some text " * 5000).encode()
    paths["cut.txt.xz"].write_bytes(lzma.compress(whole)[:-20])
    paths["cut.txt.gz"].write_bytes(gzip.compress(whole)[:-20])
    paths["latin.txt"].write_bytes("caf\xe9".encode("latin-1"))
    paths["field.jsonl"] = folder / "field.jsonl"
    paths["field.jsonl"].write_text('{"body": "no text here"}\n')
    paths["short.txt"] = folder / "short.txt"
    paths["short.txt"].write_text("Too short for many sequences, and for a validation part of it.\n" * 3)
    paths["nothing"] = folder / "nothing"
    paths["nothing"].mkdir()
    paths["picture.png"] = folder / "picture.png"
    paths["picture.png"].write_bytes(b"\x89PNG")
    return paths


BAD = [
    # what the user gives, and what the message must say: what was given, what is expected
    (["train", "nowhere.yaml"], ["nowhere.yaml"]),
    (["train", "no-such-preset"], ["no-such-preset", "demo"]),
    (["train", "tiny.yaml", "modle.architecture=bert"], ["modle", "model"]),
    (["train", "tiny.yaml", "model.architectur=bert"], ["model.architectur", "architecture"]),
    (["train", "tiny.yaml", "training.max_step=3"], ["max_step", "max_steps"]),
    (["train", "tiny.yaml", "training.max_steps=many"], ["max_steps", "many"]),
    (["train", "tiny.yaml", "training.max_steps=0"], ["max_steps", "at least 1"]),
    (["train", "tiny.yaml", "training"], ["key=value"]),
    (["train", "tiny.yaml", "methods.raptr.schedule=2-5"], ["2-5", "5 layers", "has 4"]),
    (["train", "tiny.yaml", "methods.raptr.schedule=2-x-4"], ["2-x-4", "6-8-10-12"]),
    (["train", "tiny.yaml", "methods.raptr.schedule=2-3"], ["2-3", "the last stage trains the whole model"]),
    (["train", "tiny.yaml", "training.max_steps=2"], ["2-3-4", "at least 1"]),
    (["train", "tiny.yaml", "methods.raptr.fixed=[0, 7]"], ["fixed layer 7", "0 to 3"]),
    (["train", "tiny.yaml", "data.source=nowhere"], ["nowhere"]),
    (["train", "tiny.yaml", "data.source=bad/empty.txt"], ["empty.txt"]),
    (["train", "tiny.yaml", "data.source=bad/nothing"], ["nothing", ".txt"]),
    (["train", "tiny.yaml", "data.source=bad/picture.png"], ["picture.png", ".txt"]),
    (["train", "tiny.yaml", "data.source=bad/broken.jsonl"], ["broken.jsonl", "line 2"]),
    (["train", "tiny.yaml", "data.source=bad/field.jsonl"], ["field.jsonl", "body"]),
    (["train", "tiny.yaml", "data.source=bad/cut.txt.xz"], ["cut.txt.xz"]),
    (["train", "tiny.yaml", "data.source=bad/cut.txt.gz"], ["cut.txt.gz"]),
    (["train", "tiny.yaml", "data.source=bad/latin.txt"], ["latin.txt"]),
    (["train", "tiny.yaml", "data.source=bad/short.txt", "data.tokenizer=260", "data.sequence_length=4096"], ["4096"]),
    (["train", "tiny.yaml", "model.config.vocab_size=100"], ["100", "320"]),
    (["train", "tiny.yaml", "data.tokenizer=nowhere"], ["nowhere"]),
    (["train", "unsafe.yaml"], ["unsafe.yaml", "YAML"]),
    (["train", "list.yaml"], ["list.yaml", "list"]),
    (["compare", "tiny.yaml", "--methods", "full,stacking"], ["'stacking'", "did you mean", "'gradual_stacking'"]),
    (["compare", "tiny.yaml", "--methods", "full,raptor"], ["'raptor'", "did you mean 'raptr'?"]),
    (["compare", "tiny.yaml", "--methods", "xyz"], ["'xyz'", "late_expansion"]),
    (["compare", "tiny.yaml", "--methods", "raptr"], ["methods raptr", "one method alone", "full,raptr"]),
    (["compare", "tiny.yaml", "--methods", "full"], ["methods full", "one method alone", "full,raptr"]),
    (["compare", "tiny.yaml", "--seeds", "0"], ["0", "at least 1"]),
    (["compare", "tiny.yaml", "--budget", "money"], ["money", "flops"]),
    (["plan", "--layers", "12", "--schedule", "6-8-10-14"], ["14", "12"]),
    (["plan", "--layers", "12", "--steps", "3"], ["3", "at least 1"]),
    (["plan", "--layers", "12", "--lengths", "weird"], ["weird", "equal"]),
    (
        ["plan", "--layers", "12", "--lengths", "proprtional"],
        ["--lengths is 'proprtional'; expected equal, proportional, or lengths such as 10%-20%-70%", "did you mean"],
    ),
    (["plan", "--layers", "12", "--lengths", "5-x"], ["--lengths is '5-x'; expected equal"]),
    (["plan", "--layers", "12", "--sampler", "bernouli"], ["'bernouli' is not one of"]),
    (["plan", "--layers", "12", "--warmup", "soon"], ["soon"]),
    (["plan", "--layers", "12", "--fixed", "first"], ["first"]),
    (["plan", "--layers", "0"], ["0 layers"]),
    (["plan", "tiny.yaml", "--layers", "12"], ["--layers", "tiny.yaml"]),
    (["plan", "demo", "--schedule", "3-12"], ["--schedule", "methods.raptr.schedule"]),
    (["plan", "--steps", "30"], ["--steps", "training.max_steps"]),
    (["plan", "demo", "--method", "midas"], ["--method belongs to --layers", "give method=... instead"]),
    (["plan", "--layers", "12", "--method", "stacking"], ["'stacking'", "gradual_stacking"]),
    (["plan", "--layers", "12", "--method", "rapt"], ["'rapt' is not known; did you mean 'raptr'?"]),
    (["plan", "--layers", "12", "--method", "xyz"], ["'xyz' is not known; there are: full"]),
    (["plan", "--layers", "12", "--method", "smaller"], ["'smaller'", "fewer layers", "raptr compare"]),
    (["plan", "--layers", "12", "--method", "midas", "stat=reset"], ["methods.midas.stat", "'state'"]),
    (["plan", ""], ["no name"]),
    (["train", "tiny.yaml", "--output", "/dev/null/x"], ["/dev/null/x"]),
    (["train", "tiny.yaml", "--output", "taken/thesis.txt"], ["thesis.txt", "--output"]),
    (["train", "tiny.yaml", "--cache", "/dev/null/x"], ["/dev/null/x"]),
    (["train", "tiny.yaml", "training.report_to=wandb"], ["wandb"]),
    (["compare", "tiny.yaml", "seed=4294967295"], ["4294967295", "smaller seed"]),
    (["report", "nowhere"], ["nowhere"]),
    (["report", "bad"], ["bad"]),
    (["train", "tiny.yaml", "--output", "taken"], ["taken", "not a run"]),
    (["report", "--colour"], ["--colour"]),
    (["dance"], ["dance"]),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(given) for given, _ in BAD])
def test_bad_input_ends_with_code_2_one_message_and_nothing_changed(
    arguments: list[str], said: list[str], raptr_command: Any, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    text_files(tmp_path / "bad")
    (tmp_path / "unsafe.yaml").write_text("name: !!python/object/apply:os.mkdir [hacked]\n")
    (tmp_path / "list.yaml").write_text("- name\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("precious")
    before = contents(tmp_path)
    code, printed = raptr_command(*arguments)
    assert code == 2, printed
    assert "Traceback" not in printed
    assert "Value error" not in printed  # the library's word
    for words in said:
        assert words in printed, printed
    assert contents(tmp_path) == before
    assert not (tmp_path / "hacked").exists()


@pytest.mark.slow
def test_run_of_another_config_is_refused_and_left_alone(raptr_command: Any, config: Path, tmp_path: Path) -> None:
    assert raptr_command("train", str(config), "training.max_steps=4")[0] == 0
    before = contents(tmp_path)
    code, printed = raptr_command("train", str(config), "training.max_steps=5")
    assert code == 2
    assert "max_steps: 4" in printed
    assert "training.max_steps: 4 -> 5" in printed
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_real_command_exits_with_2_and_without_a_traceback(tmp_path: Path) -> None:
    """Once as a real process: what the tests above call in this one is what a shell gets."""
    done = subprocess.run(
        [sys.executable, "-m", "raptr", "plan", "--layers", "12", "--schedule", "6-8-10-13"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("raptr: schedule 6-8-10-13 asks for 13 layers")
    assert "Traceback" not in done.stderr


def test_a_defect_is_not_dressed_up_as_a_users_mistake(raptr_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr("raptr.cli.show.show_plan", broken)
    with pytest.raises(ValueError, match="a defect"):
        raptr_command("plan", "--layers", "12")
