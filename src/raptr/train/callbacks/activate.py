"""Activate the subnetwork of each step: the part of `ProgressiveCallback` that raptr's own runs use as well."""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import ParallelMode

from raptr.errors import RaptrError
from raptr.model import AttachedModel
from raptr.model.optimizer import Inactive
from raptr.plan import Subnetwork
from raptr.plan.protocol import Trainable
from raptr.train.ranks import world_size


class ActivateCallback(TrainerCallback):  # type: ignore[misc]
    """Trains the subnetworks of a plan, on a model that is attached already.

    Args:
        net: the attached model.
        plan: says which subnetwork each step trains.
        inactive: what the optimizer does with skipped layers, see `AttachedModel.prepare`.

    Attributes:
        drawn: the subnetworks of the current step, one for each micro-step that has begun. Each is drawn once; other
            callbacks read them here.

    Raises:
        RaptrError: when training begins, if DDP or the number of processes does not allow to train parts of a model.
    """

    def __init__(self, net: AttachedModel, plan: Trainable, inactive: Inactive = "freeze") -> None:
        self.drawn: tuple[Subnetwork, ...] = ()
        self._net = net
        self._plan = plan
        self._inactive: Inactive = inactive
        self._caching: list[Any] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the Trainer, prepare the optimizer, and switch off caches of keys and values."""
        check_trainer(args, kwargs["model"])
        self._net.prepare(kwargs["optimizer"], inactive=self._inactive)
        if not getattr(args, "use_cache", False):
            self._caching += _caching_parts(kwargs["model"])
            for config in self._caching:
                config.use_cache = False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare the ranks, and activate the subnetwork of the step's first micro-step."""
        self._net.check_ranks(self._plan, state.global_step, micro_steps=args.gradient_accumulation_steps)
        self.drawn = (self._net.activate(self._plan, state.global_step),)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Activate the subnetwork of the next micro-step."""
        self.drawn += (self._net.activate(self._plan, state.global_step, len(self.drawn)),)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave an ordinary model behind. A sharded one stays attached: its class is FSDP's by now."""
        while self._caching:
            self._caching.pop().use_cache = True
        if self._net.detachable:
            self._net.detach()


def check_trainer(args: TrainingArguments, model: nn.Module) -> None:
    """Refuse a Trainer under which parts of a model cannot be trained.

    Raises:
        RaptrError: the model would be compiled as a whole, the processes do not know of each other, or DDP would wait
            for the gradients of skipped layers.
    """
    check_compile(args)
    _check_processes(args)
    check_ddp(args, model)


def _caching_parts(model: nn.Module) -> list[Any]:
    """The configurations of parts of a model, as T5's decoder, that keep keys and values for generation.

    The Trainer turns that off in the configuration of the model only, of which such a part has a copy. In training
    it is of no use, and layers that run on some sequences of a batch cannot cut a cache.
    """
    own = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    own.pop(id(getattr(model, "config", None)), None)
    return [config for config in own.values() if getattr(config, "use_cache", None) is True]


def check_compile(args: TrainingArguments) -> None:
    """Refuse to compile the whole model, which recompiles for every path and after 8 of them runs eagerly."""
    if args.torch_compile:
        raise RaptrError(
            "torch_compile=True compiles the whole model, which recompiles for every path and then runs eagerly; set "
            "TrainingArguments(torch_compile=False) and ProgressiveCallback(method, compile=True), which compiles each "
            "layer by itself."
        )


def _check_processes(args: TrainingArguments) -> None:
    """Refuse processes that know of each other while their Trainers do not."""
    if world_size() > 1 and args.world_size == 1:
        raise RaptrError(
            f"{world_size()} processes were started, but the Trainer sees one: each would train a model of its own. "
            "Without an accelerator set TrainingArguments(use_cpu=True)."
        )


def check_ddp(args: TrainingArguments, model: nn.Module) -> None:
    """Refuse settings under which DDP stops at the second step, or trains wrongly."""
    if args.parallel_mode != ParallelMode.DISTRIBUTED or args.deepspeed:
        return
    if args.fsdp:
        if not isinstance(model, FSDPModule | FullyShardedDataParallel):
            raise RaptrError(
                "TrainingArguments(fsdp=...) was given, but the model is not sharded: Accelerate shards on "
                "accelerators only, and trains with DDP elsewhere without saying so. Leave fsdp out, or train on GPUs."
            )
        return
    newer = getattr(model, "is_activation_checkpointing", None)
    checkpointing = args.gradient_checkpointing or (
        getattr(model, "is_gradient_checkpointing", False) if newer is None else newer
    )
    if args.ddp_find_unused_parameters is False or (args.ddp_find_unused_parameters is None and checkpointing):
        raise RaptrError(
            f"ddp_find_unused_parameters is {args.ddp_find_unused_parameters} "
            f"{'with activation checkpointing ' if checkpointing else ''}under DDP, which then waits for the gradients "
            "of skipped layers; set TrainingArguments(ddp_find_unused_parameters=True)."
        )
    if getattr(args, "ddp_static_graph", None):
        raise RaptrError(
            "ddp_static_graph=True needs the same layers at every step, but a subnetwork changes; "
            "set TrainingArguments(ddp_static_graph=False)."
        )
