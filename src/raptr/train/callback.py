"""`ProgressiveCallback`: progressive subnetwork training under Hugging Face's Trainer."""

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raptr.model import AttachedModel, attach
from raptr.model.optimizer import Inactive
from raptr.plan import Method, Plan, for_rows
from raptr.train.callbacks.activate import ActivateCallback, check_compile


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
        RaptrError: at the beginning of training, if the method does not fit the model, the number
            of steps or the micro-batch, or if DDP was set up so that it cannot train parts of a model.

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
        self._active: ActivateCallback | None = None

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Attach the model before the Trainer wraps it."""
        check_compile(args)
        if kwargs.get("model") is not None:
            self._attach(kwargs["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bind the plan and prepare the optimizer."""
        if self.net is not None and self.plan is not None and self.net.detachable:
            self.net.detach()  # left over from a training that was interrupted
            self.net = None
        net = self._attach(kwargs["model"])
        self.plan = for_rows(self.method.plan(net.shape, state.max_steps), args.per_device_train_batch_size)
        self._active = ActivateCallback(net, self.plan, self.inactive)
        self._active.on_train_begin(args, state, control, **kwargs)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Activate this step's subnetwork."""
        assert self._active is not None
        self._active.on_step_begin(args, state, control, **kwargs)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Activate the next micro-step's subnetwork, where gradients are accumulated."""
        assert self._active is not None
        self._active.on_substep_end(args, state, control, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave an ordinary model behind. A sharded one stays attached: its class is FSDP's by now."""
        assert self.net is not None
        assert self._active is not None
        sharded = not self.net.detachable
        self._active.on_train_end(args, state, control, **kwargs)
        self.net = self.net if sharded else None

    def _attach(self, model: nn.Module) -> AttachedModel:
        if self.net is None or self.net.model is not model:
            self.net = attach(model, compile=self.compile)
        return self.net
