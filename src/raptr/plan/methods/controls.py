"""Controls: what RaPTr is compared with to see whether it is the *growth* of the paths that matters."""

from dataclasses import KW_ONLY, dataclass

from raptr.errors import RaptrError
from raptr.plan.boundary_lr import TransitionLR
from raptr.plan.fields import check_fields
from raptr.plan.methods.path_plan import PathPlan, bind_paths, check_sizes
from raptr.plan.methods.spec_parts import FALLING, Redraw, Sampler, Scaling, always_kept
from raptr.plan.schedule import Schedule
from raptr.plan.shape import ModelShape


@dataclass(frozen=True)
class ConstantSize:
    """Random paths of one size for the whole run: RaPTr without its growth.

    A size of 9 of 12 layers costs the same layer FLOPs as RaPTr 6-8-10-12 in equal stages, but never trains the
    whole model: the control at equal FLOPs that the paper's reviewers asked for.

    Args:
        size: layers kept at every step, as text: a count "9" or a share "75%".
        fixed: layers that are always kept, negative from the end; in every stack.
        sampler: "fixed" or "bernoulli", as for `RaPTr`.
        scaling: "none", "inverse" or "sqrt", as for `RaPTr`.
        redraw: "step" or "micro_step", as for `RaPTr`.
        seed: of the paths.

    Raises:
        RaptrError: here or at `plan`, as for `RaPTr`.

    Example:
        >>> plan = ConstantSize("75%").plan(ModelShape.of(layers=12), steps=100)
        >>> {len(plan.subnetwork(step).layers[0]) for step in range(100)}
        {9}

    Reference:
        Ours; the reviews of arXiv 2402.05913 asked for it.
    """

    size: str = "75%"
    _: KW_ONLY
    fixed: tuple[int, ...] = (0, -1)
    sampler: Sampler = "fixed"
    scaling: Scaling = "none"
    redraw: Redraw = "step"
    seed: int = 0
    name = "constant_size"
    skips = ("layers",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", str(self.size))
        if len(self._schedule.sizes) != 1:
            raise RaptrError(f"size {self.size!r} is not one size; give a count such as '9', or a share such as '75%'.")
        check_fields(self)

    def __str__(self) -> str:
        return f"Constant size {self.size}"

    @property
    def _schedule(self) -> Schedule:
        return Schedule.parse(self.size)

    def plan(self, shape: ModelShape, steps: int) -> PathPlan:
        """Bind to a model's shape and a run of ``steps`` steps.

        Raises:
            RaptrError: the size does not fit the model or its fixed set, or a fixed layer is out of range.
        """
        stages = self._schedule.bind(shape, steps)
        fixed = (always_kept(self.fixed, shape),)
        check_sizes(self._schedule, stages, fixed, shape)
        return bind_paths(self, shape, stages, fixed)


@dataclass(frozen=True)
class Reversed:
    """Random paths that shrink from the whole model: RaPTr backwards, 12-10-8-6.

    Costs what RaPTr with the same sizes costs, and trains the whole model first instead of last.

    Args:
        schedule: a `Schedule` whose sizes fall from the whole model, or its sizes as text, "12-10-8-6" or
            "100%-75%-50%".
        fixed: layers that are always kept, negative from the end; in every stack.
        sampler: "fixed" or "bernoulli", as for `RaPTr`.
        scaling: "none", "inverse" or "sqrt", as for `RaPTr`.
        redraw: "step" or "micro_step", as for `RaPTr`.
        seed: of the paths.
        transition_lr: what the learning rate does at stage boundaries; nothing if not given.

    Raises:
        RaptrError: here or at `plan`, as for `RaPTr`.

    Example:
        >>> [stage.label for stage in Reversed("12-10-8-6").plan(ModelShape.of(layers=12), steps=100).stages]
        ['12', '10', '8', '6']

    Reference:
        Ours; the reviews of arXiv 2402.05913 asked for it.
    """

    schedule: Schedule | str = FALLING
    _: KW_ONLY
    fixed: tuple[int, ...] = (0, -1)
    sampler: Sampler = "fixed"
    scaling: Scaling = "none"
    redraw: Redraw = "step"
    seed: int = 0
    transition_lr: TransitionLR | None = None
    name = "reversed"
    skips = ("layers",)

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return f"Reversed {self.schedule}"

    def plan(self, shape: ModelShape, steps: int) -> PathPlan:
        """Bind to a model's shape and a run of ``steps`` steps.

        Raises:
            RaptrError: the sizes rise, or do not begin with the whole model, or do not fit it or its fixed set, or a
                fixed layer is out of range.
        """
        assert isinstance(self.schedule, Schedule)
        stages = self.schedule.bind(shape, steps)
        shrinking = [stage for stage in stages if not stage.warmup]
        fixed = (always_kept(self.fixed, shape),) * len(stages)
        check_sizes(self.schedule, shrinking, fixed[: len(shrinking)], shape)
        for stack, *sizes in zip(shape.stacks, *(stage.sizes for stage in shrinking), strict=True):
            if sizes != sorted(sizes, reverse=True):
                raise RaptrError(
                    f"schedule {self.schedule} grows ({'-'.join(map(str, sizes))} layers of {stack.name!r}); "
                    "reversed shrinks: give sizes that do not rise, e.g. 12-10-8-6."
                )
            if sizes[0] != stack.layers:
                raise RaptrError(
                    f"schedule {self.schedule} begins with {sizes[0]} of the {stack.layers} layers of "
                    f"{stack.name!r}; reversed trains the whole model first: begin with {stack.layers} or 100%."
                )
        return bind_paths(self, shape, stages, fixed, self.transition_lr)
