"""`ProgressiveCallback` under an ordinary Trainer."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.training_args import ParallelMode

import raptr
from raptr.errors import RaptrError
from raptr.plan.methods import SequenceLayerDropout
from raptr.train.callbacks.activate import check_ddp

METHOD = raptr.RaPTr("2-3-4", seed=3)


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            use_cache=False,
        )
    )


def make_data(count: int = 24) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 32, (count, 8), generator=generator)
    return [{"input_ids": row, "labels": row} for row in tokens]


def make_trainer(
    folder: Path, model: torch.nn.Module, method: Any = METHOD, extra: Any = (), **arguments: Any
) -> Trainer:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 12,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **arguments,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**values),
        train_dataset=make_data(),
        callbacks=[raptr.ProgressiveCallback(method), *extra],
    )


class Watch(TrainerCallback):  # type: ignore[misc]
    """Notes which layers moved in each step."""

    def __init__(self) -> None:
        self.moved: list[tuple[int, ...]] = []
        self._before: dict[str, torch.Tensor] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._before = copy.deepcopy(kwargs["model"].state_dict())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        after = kwargs["model"].state_dict()
        moved = {
            int(name.split(".")[2])
            for name, value in after.items()
            if name.startswith("model.layers.") and not torch.equal(value, self._before[name])
        }
        self.moved.append(tuple(sorted(moved)))


@pytest.mark.slow
def test_exactly_the_planned_layers_move_at_every_step(tmp_path: Path) -> None:
    watch = Watch()
    make_trainer(tmp_path, make_model(), extra=[watch], weight_decay=0.1).train()
    plan = METHOD.plan(raptr.ModelShape.of(layers=4), 12)
    assert watch.moved == [plan.subnetwork(step).layers[0] for step in range(12)]
    assert len(set(watch.moved)) > 2, "the check needs different paths"


@pytest.mark.slow
def test_zero_policy_moves_skipped_layers(tmp_path: Path) -> None:
    watch = Watch()
    trainer = make_trainer(tmp_path, make_model(), extra=[watch], weight_decay=0.1)
    progressive = next(c for c in trainer.callback_handler.callbacks if isinstance(c, raptr.ProgressiveCallback))
    progressive.inactive = "zero"
    trainer.train()
    assert watch.moved == [(0, 1, 2, 3)] * 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the fixed set was enlarged")
@pytest.mark.parametrize("method", [METHOD, SequenceLayerDropout()])
def test_a_decoder_with_a_configuration_of_its_own_keeps_no_cache_in_training(method: Any, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=32, decoder_start_token_id=0, **sizes))
    kept: list[bool] = []
    handle = model.decoder.register_forward_hook(
        lambda module, args, output: kept.append(output.past_key_values is not None)
    )
    make_trainer(tmp_path, model, method, max_steps=6).train()
    assert kept == [False] * 6
    model(**{name: row[None] for name, row in make_data()[0].items()})
    assert kept[-1], "afterwards the model is as it was"
    handle.remove()


@pytest.mark.slow
def test_steps_are_the_trainers_own_however_given(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(), max_steps=-1, num_train_epochs=2)
    trainer.train()
    progressive = next(c for c in trainer.callback_handler.callbacks if isinstance(c, raptr.ProgressiveCallback))
    assert progressive.plan is not None
    assert progressive.plan.stages[-1].stop == 2 * 24 // 2


@pytest.mark.slow
def test_gradient_accumulation_uses_one_path_for_a_step(tmp_path: Path) -> None:
    watch = Watch()
    make_trainer(tmp_path, make_model(), extra=[watch], gradient_accumulation_steps=3, max_steps=6).train()
    plan = METHOD.plan(raptr.ModelShape.of(layers=4), 6)
    assert watch.moved == [plan.subnetwork(step).layers[0] for step in range(6)]


@pytest.mark.slow
def test_model_is_ordinary_after_training(tmp_path: Path) -> None:
    model, untouched = make_model(), make_model()
    make_trainer(tmp_path, model).train()
    assert [type(m) for m in model.modules()] == [type(m) for m in untouched.modules()]
    assert [set(m.__dict__) for m in model.model.layers] == [set(m.__dict__) for m in untouched.model.layers]


@pytest.mark.slow
def test_trainer_can_train_twice(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model())
    trainer.train()
    trainer.train()
    assert trainer.state.global_step == 12


@pytest.mark.slow
def test_training_can_be_taken_up_again_after_an_interruption(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):  # type: ignore[misc]
        done = False

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5 and not self.done:
                self.done = True
                raise KeyboardInterrupt

    whole, model = make_model(), make_model()
    make_trainer(tmp_path / "whole", whole).train()
    trainer = make_trainer(tmp_path / "parts", model, extra=[Interrupt()], save_strategy="steps", save_steps=3)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
    assert "_raptr_gate" not in model.model.layers[0].__dict__


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4, 8])
def test_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path: Path, stop: int) -> None:
    whole = make_model()
    make_trainer(tmp_path / "whole", whole, weight_decay=0.1).train()

    arguments = {"save_strategy": "steps", "save_steps": stop, "weight_decay": 0.1}
    make_trainer(tmp_path / "parts", make_model(), **arguments).train()
    checkpoint = str(tmp_path / "parts" / f"checkpoint-{stop}")
    resumed = make_model()
    make_trainer(tmp_path / "parts", resumed, **arguments).train(resume_from_checkpoint=checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))

    other = make_model()
    method = raptr.RaPTr("2-3-4", seed=4)
    make_trainer(tmp_path / "parts", other, method, **arguments).train(resume_from_checkpoint=checkpoint)
    same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))
    assert same == (stop == 8), "other paths give another model, unless only the full stage is left"


@pytest.mark.slow
def test_schedule_that_does_not_fit_is_refused_before_the_first_step(tmp_path: Path) -> None:
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RaptrError, match="asks for 8 layers"):
        make_trainer(tmp_path, model, raptr.RaPTr("2-8")).train()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_micro_batches_of_one_sequence_are_rejected_before_the_first_step(tmp_path: Path) -> None:
    model, method = make_model(), SequenceLayerDropout(rate=0.9)
    with pytest.raises(RaptrError, match="Use micro-batches of at least 2 sequences"):
        make_trainer(tmp_path, model, method, per_device_train_batch_size=1).train()
    make_trainer(tmp_path, make_model(), method, max_steps=1).train()  # control: two sequences


def _arguments(**changes: Any) -> Any:
    values = {
        "parallel_mode": ParallelMode.DISTRIBUTED,
        "fsdp": [],
        "deepspeed": None,
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": None,
        "ddp_static_graph": None,
    }
    return SimpleNamespace(**{**values, **changes})


def test_ddp_settings_that_cannot_train_parts_are_refused_by_name() -> None:
    model = make_model()
    check_ddp(_arguments(), model)
    check_ddp(_arguments(parallel_mode=ParallelMode.NOT_DISTRIBUTED, ddp_find_unused_parameters=False), model)
    for changes in ({"ddp_find_unused_parameters": False}, {"gradient_checkpointing": True}):
        with pytest.raises(RaptrError, match="ddp_find_unused_parameters"):
            check_ddp(_arguments(**changes), model)
    with pytest.raises(RaptrError, match="ddp_static_graph"):
        check_ddp(_arguments(ddp_static_graph=True, ddp_find_unused_parameters=True), model)


def test_fsdp_that_would_be_ddp_is_refused() -> None:
    with pytest.raises(RaptrError, match="the model is not sharded"):
        check_ddp(_arguments(fsdp=True), make_model())


def test_whole_model_compilation_is_refused_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(RaptrError, match=r"torch_compile=False.*compile=True"):
        make_trainer(tmp_path, make_model(), torch_compile=True)
