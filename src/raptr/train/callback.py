"""`ProgressiveCallback`: progressive subnetwork training under Hugging Face's Trainer."""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import ParallelMode

from raptr.errors import RaptrError
from raptr.model import AttachedModel, attach
from raptr.model.optimizer import Inactive
from raptr.plan import Method, Plan
from raptr.train.ranks import world_size


class ProgressiveCallback(TrainerCallback):  # type: ignore[misc]
    """Train a part of the model at each step of a Trainer.

    It only calls the functional form: the model is attached when the Trainer is made (before it is
    wrapped or sharded), the plan is bound to the Trainer's own number of steps and the optimizer
    prepared when training begins, a subnetwork is activated at every micro-step (ranks make sure first that
    they choose the same), and the model is detached at the end. A resumed run goes on exactly, since a plan is a
    function of the step.

    Args:
        method: e.g. ``raptr.RaPTr("6-8-10-12")``.
        inactive: what the optimizer does with skipped layers, "freeze" or "zero"; see
            `AttachedModel.prepare`.
        compile: compile each layer by itself, so that every path uses one graph; see `attach`. The Trainer's own
            ``torch_compile`` compiles the whole model, which recompiles for every path, and is refused.

    Attributes:
        net: the attached model, once the Trainer is made.
        plan: the method's plan, once training has begun.

    Raises:
        RaptrError: at the beginning of training, if the method does not fit the model or the number
            of steps, or if DDP was set up so that it cannot train parts of a model.

    Example:
        >>> import raptr
        >>> callback = raptr.ProgressiveCallback(raptr.RaPTr("6-8-10-12"))  # for Trainer(callbacks=[callback])
        >>> str(callback.method)
        'RaPTr 6-8-10-12'
    """

    def __init__(self, method: Method, inactive: Inactive = "freeze", compile: bool = False) -> None:
        self.method = method
        self.inactive: Inactive = inactive
        self.compile = compile
        self.net: AttachedModel | None = None
        self.plan: Plan | None = None
        self._micro = 0
        self._caching: list[Any] = []

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Attach the model before the Trainer wraps it."""
        _check_compile(args)
        if kwargs.get("model") is not None:
            self._attach(kwargs["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bind the plan and prepare the optimizer."""
        _check_compile(args)
        _check_processes(args)
        _check_ddp(args, kwargs["model"])
        if self.net is not None and self.plan is not None and self.net.detachable:
            self.net.detach()  # left over from a training that was interrupted
            self.net = None
        net = self._attach(kwargs["model"])
        self.plan = self.method.plan(net.shape, state.max_steps)
        net.prepare(kwargs["optimizer"], inactive=self.inactive)
        if not getattr(args, "use_cache", False):
            self._caching += _caching_parts(kwargs["model"])
            for config in self._caching:
                config.use_cache = False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Activate this step's subnetwork."""
        assert self.net is not None
        assert self.plan is not None
        self._micro = 0
        self.net.check_ranks(self.plan, state.global_step, micro_steps=args.gradient_accumulation_steps)
        self.net.activate(self.plan, state.global_step)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Activate the next micro-step's subnetwork, where gradients are accumulated."""
        assert self.net is not None
        assert self.plan is not None
        self._micro += 1
        self.net.activate(self.plan, state.global_step, self._micro)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave an ordinary model behind. A sharded one stays attached: its class is FSDP's by now."""
        while self._caching:
            self._caching.pop().use_cache = True
        if self.net is not None and self.net.detachable:
            self.net.detach()
            self.net = None

    def _attach(self, model: nn.Module) -> AttachedModel:
        if self.net is None or self.net.model is not model:
            self.net = attach(model, compile=self.compile)
        return self.net


def _caching_parts(model: nn.Module) -> list[Any]:
    """The configurations of parts of a model, as T5's decoder, that keep keys and values for generation.

    The Trainer turns that off in the configuration of the model only, of which such a part has a copy. In training
    it is of no use, and layers that run on some sequences of a batch cannot cut a cache.
    """
    own = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    own.pop(id(getattr(model, "config", None)), None)
    return [config for config in own.values() if getattr(config, "use_cache", None) is True]


def _check_compile(args: TrainingArguments) -> None:
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


def _check_ddp(args: TrainingArguments, model: nn.Module) -> None:
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
