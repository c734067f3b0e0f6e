"""What a run trains on and what a step costs: everything but the method."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from raptr.config import RunConfig
from raptr.config.objective import MaskedConfig
from raptr.data import (
    STRETCH,
    Collator,
    Corpus,
    Mixture,
    Sequences,
    TrainingData,
    ValidationData,
    WindowCollator,
    WindowData,
    WindowValidation,
    prepare,
    vocabulary,
)
from raptr.data.samples.windows import BLOCK
from raptr.errors import RaptrError
from raptr.model import Layers, check_plan, count_flops, find_layers
from raptr.objectives import Objective, causal, masked
from raptr.plan import LayerCosts, Method, ModelShape, Plan, for_rows, plan_cost
from raptr.train.setup.arguments import batch_of, build_arguments, rows_of, steps_of
from raptr.train.setup.denoising_windows import Denoised, denoise, denoising_costs
from raptr.train.setup.model import SPECIAL_TOKENS, build_model, build_model_config, positions_of
from raptr.train.setup.own_model import own_config
from raptr.train.setup.predictions import predictions_of
from raptr.train.setup.special_tokens import check_room, check_same_tokens, limited_to, marked, vocabulary_of
from raptr.train.setup.whole_words import say_words, word_options

_VALIDATION_SEED = 0
"""Every run masks the validation text alike, whatever its seed, so that losses compare."""


class MicroStep(NamedTuple):
    """What one micro-step does, where steps differ.

    Attributes:
        costs: FLOPs of a step of the whole batch, if all of its micro-steps were like this one.
        tokens: of this micro-step.
    """

    costs: LayerCosts
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data, model configuration and step costs of a config.

    Attributes:
        store: the tokens of every source and their tokenizer.
        training: all training sequences, and how the sources are mixed; of denoising, the stretches that windows are
            cut from.
        validation: all validation sequences of each source.
        tokenizer: the one of the tokens, with what the objective adds to it: the names in ``added``.
        model_config: the transformers configuration of the model.
        layers: what is known of the model's layers.
        costs: FLOPs of one step of the whole batch; where steps differ, the expected ones.
        denoised: of the denoising objective, its windows.
        denoiser_costs: of each denoiser, FLOPs of a step whose batch is all of it.
        parameters: how many the model has; ``layer_parameters`` of them in the layers.
        predictions: on how many positions of a sequence the vocabulary head runs; None for all.
        batch: sequences per step, over all processes and micro-steps.
        rows: sequences per micro-step of one process.
        steps: the config's number of steps.
    """

    config: RunConfig
    store: Corpus
    training: Mixture
    validation: dict[str, Sequences]
    tokenizer: Any
    added: tuple[str, ...]
    model_config: Any
    layers: Layers
    costs: LayerCosts
    parameters: int
    layer_parameters: int
    predictions: int | None
    batch: int
    rows: int
    steps: int
    denoised: Denoised | None = None
    denoiser_costs: tuple[LayerCosts, ...] = ()

    @property
    def shape(self) -> ModelShape:
        """The model's shape."""
        return self.layers.shape

    def plan(self, method: Method, steps: int | None = None) -> Plan:
        """Bind a method to this model, the micro-batch and a number of steps, by default the task's; check all of it.

        Raises:
            RaptrError: the method does not fit the number of steps, the micro-batch, or the model at any of its stages.
        """
        plan = for_rows(method.plan(self.shape, self.steps if steps is None else steps), self.rows)
        check_plan(plan, self.layers)
        return plan

    @property
    def tokens_per_step(self) -> float:
        """Document tokens of one step; where steps differ, the expected number."""
        per_sequence = self.denoised.turns.per_window if self.denoised else self.config.data.sequence_length
        return self.batch * per_sequence

    def work(self, step: int, micro: int) -> MicroStep:
        """What a micro-step of the denoising objective does: it differs with the denoiser that is drawn."""
        assert self.denoised is not None
        kinds = self.denoised.kinds(step, micro, self.config.seed)
        tokens = self.denoised.tokens(step, micro, self.config.seed)
        return MicroStep(costs=self.denoiser_costs[kinds[0]], tokens=tokens)  # those of a decoder-only model are equal

    def dearest(self, rows: int) -> range:
        """The samples of a micro-batch of ``rows`` sequences that costs as much as any of the run."""
        denoised = self.denoised
        if denoised is None or not denoised.alike:
            return range(rows)
        turns = range(min(self.steps * denoised.micro_steps, BLOCK))
        costs = {kind: each.total for kind, each in enumerate(self.denoiser_costs)}
        dearest = max(turns, key=lambda turn: costs[denoised.turns.at(turn, self.config.seed)[0]])
        return range(dearest * denoised.rows, dearest * denoised.rows + rows)

    def epochs(self, steps: int) -> float:
        """How often ``steps`` steps see the training data."""
        return self._sequences(steps) / len(self.training)

    def epochs_by_source(self, steps: int) -> dict[str, float]:
        """How often ``steps`` steps see the training data of each source."""
        return dict(zip(self.store.stores, self.training.epochs(self._sequences(steps)), strict=True))

    def training_data(self, steps: int) -> TrainingData | WindowData:
        """The sequences of a run of ``steps`` steps, in the order that the config's seed gives."""
        if self.denoised is not None:
            return self.denoised.training_data(self.training, self.config.seed, steps * self.batch)
        return TrainingData(self.training, seed=self.config.seed, samples=steps * self.batch)

    def validation_data(self) -> dict[str, ValidationData | WindowValidation]:
        """The sequences of every validation, by source: the same for every run.

        Where the config has the short form of one source, its name is "validation".

        Raises:
            RaptrError: the validation text is too short for the part that is asked for.
        """
        wanted = self.config.evaluation
        found = dict[str, ValidationData | WindowValidation]()
        for source, (name, sequences) in enumerate(self.validation.items()):
            label = name if self.config.data.sources else "validation"
            try:
                data = ValidationData(sequences, part=wanted.part, source=source).at_most(wanted.sequences)
                found[label] = data if self.denoised is None else self.denoised.validation_data(data)
            except RaptrError as error:
                raise RaptrError(f"validation of {name}: {error}") from error
        return found

    def collator(self, *, validation: bool = False) -> Collator | WindowCollator:
        """Makes the model's inputs and labels out of sequences."""
        seed = _VALIDATION_SEED if validation else self.config.seed
        if self.denoised is not None:
            return self.denoised.collator(seed, self.tokenizer, self.model_config)
        return Collator(self._objective(seed))

    def _sequences(self, steps: int) -> float:
        """So many of `training` do so many steps see."""
        return steps * self.tokens_per_step / self.training.sources[0].length

    def _objective(self, seed: int) -> Objective:
        objective, tokenizer = self.config.objective, self.tokenizer
        if not isinstance(objective, MaskedConfig):
            return causal
        return partial(
            masked,
            seed=seed,
            mask_id=tokenizer.mask_token_id,
            vocab_size=vocabulary(tokenizer),
            special_ids=tuple(tokenizer.all_special_ids),
            rate=objective.rate,
            predictions=self.predictions,
            **(word_options(tokenizer) if objective.whole_words else {}),
        )


def prepare_task(config: RunConfig, cache: Path) -> Task:
    """Prepare the data (once; it is cached) and check the config against it and the model.

    Raises:
        RaptrError: data, model or training arguments that do not fit, or no number of steps.
    """
    arguments = build_arguments(config, Path())
    with arguments.main_process_first(desc="the data"):  # of each machine; the others find it in the cache
        store = prepare_data(config, cache)
    batch = batch_of(arguments)
    facts = _model_facts(config, store, batch)
    length = longest = config.data.sequence_length
    per_step = float(batch * length)
    denoised = None
    if config.objective.name == "denoising":
        denoised = denoise(config, facts["model_config"], rows_of(arguments), arguments.gradient_accumulation_steps)
        length, longest, per_step = STRETCH * length, denoised.longest, batch * denoised.turns.per_window
    try:
        training, validation = store.training(length), store.validation(longest)
    except RaptrError as error:
        if denoised is None:
            raise
        raise RaptrError(
            f"{error} With data.sequence_length={config.data.sequence_length}, denoising trains on stretches of "
            f"{length} tokens and validates on windows of up to {longest}."
        ) from error
    task = Task(
        config=config,
        store=store,
        training=training,
        validation=validation,
        batch=batch,
        rows=arguments.train_batch_size,
        steps=steps_of(config, len(training) * length / per_step),
        denoised=denoised,
        **facts,
    )
    task.collator()
    task.validation_data()
    if isinstance(config.objective, MaskedConfig) and config.objective.whole_words:
        say_words(task.tokenizer, training.sources, config.objective.rate)
    return task


def with_config(task: Task, config: RunConfig) -> Task:
    """The task of a config that differs from a task's own in the model only: the same data, another model.

    Raises:
        RaptrError: what is wrong with the model.
    """
    return replace(task, config=config, **_model_facts(config, task.store, task.batch))


def task_of(task: Task, label: str) -> Task:
    """Return the task of an entry of the config: the same, unless the entry's method trains a model of its own.

    An own model has its own depth, initial weights, FLOPs and checkpoint, on the same data.

    Args:
        task: of the config's model.
        label: of the entry.

    Raises:
        RaptrError: as `own_config`.
    """
    own = own_config(
        task.config, label, model_config=task.model_config, shape=task.shape, costs=task.costs, steps=task.steps
    )
    return task if own is task.config else with_config(task, own)


def own_task(task: Task) -> Task:
    """Return the task of the model that the config's method trains; the same if the task has that model already.

    Raises:
        RaptrError: as `own_config`.
    """
    label = task.config.method
    return task if task.config.settings(label).is_own(task.shape) else task_of(task, label)


def _model_facts(config: RunConfig, store: Corpus, batch: int) -> dict[str, Any]:
    """What a task knows of its model."""
    check_same_tokens(config, store.tokenizer)
    tokenizer, added = marked(config, store.tokenizer)
    special_tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in SPECIAL_TOKENS}
    before = store.tokenizer if config.model.from_pretrained else tokenizer  # what is added is looked at below
    model_config = build_model_config(config, vocabulary(before), special_tokens)
    check_room(config, model_config, tokenizer, added)
    tokenizer = limited_to(tokenizer, positions_of(model_config))
    measured = measure(config, model_config)
    return {
        "tokenizer": tokenizer,
        "added": added,
        "model_config": model_config,
        "layers": measured.layers,
        "costs": measured.costs.scaled(batch),
        "denoiser_costs": tuple(costs.scaled(batch) for costs in measured.denoiser_costs),
        "parameters": measured.parameters,
        "layer_parameters": measured.layer_parameters,
        "predictions": measured.predictions,
    }


def prepare_data(config: RunConfig, cache: Path, workers: int | None = None) -> Corpus:
    """The config's tokens: read, tokenized and stored once, by so many processes or one for each core."""
    return prepare(config.data, cache, workers, continued=config.model.from_pretrained is not None)


class Planned(NamedTuple):
    """A config's method, bound to its model and number of steps.

    Attributes:
        method: its key, as in ``raptr methods``.
        name: of the method, with its settings.
        plan: of the run.
        costs: FLOPs of one step of the whole batch.
        objective: causal, masked or denoising.
        pre_norm: whether the layers' norms come before attention and MLP.
        parameters: in the layers of the config's model, which a control with another model is compared with.
        tokens: of full training of that model, for as many FLOPs as the run has.
        layers: of that model.
    """

    method: str
    name: str
    plan: Plan
    costs: LayerCosts
    objective: str
    pre_norm: bool
    parameters: int
    tokens: float
    layers: int


def plan_run(config: RunConfig) -> Planned:
    """What a config would train; no text is read and nothing is trained.

    Raises:
        RaptrError: what does not fit together, or no number of steps.
    """
    arguments = build_arguments(config, Path())
    if "max_steps" not in config.training:
        raise RaptrError("the number of steps is not known without the data; give training.max_steps=...")
    batch, steps = batch_of(arguments), int(config.training["max_steps"])
    model_config = build_model_config(config, vocabulary_of(config))
    given = measured = measure(config, model_config)
    shape, own, objective = given.layers.shape, config.settings(config.method), config.objective.name
    if not own.is_own(shape):
        config = own_config(
            config, config.method, model_config=model_config, shape=shape, costs=given.costs, steps=steps
        )
        measured = measure(config, build_model_config(config, vocabulary_of(config)))
    plan = for_rows(config.build_method().plan(measured.layers.shape, steps), arguments.train_batch_size)
    check_plan(plan, measured.layers)
    costs = measured.costs.scaled(batch)
    sequences = sum(stage.total for stage in plan_cost(plan, costs)) / given.costs.total
    return Planned(
        method=own.method,
        name=own.told(),
        plan=plan,
        costs=costs,
        objective=objective,
        pre_norm=given.layers.pre_norm,
        parameters=given.layer_parameters,
        tokens=sequences * config.data.sequence_length,
        layers=sum(shape.layers),
    )


class Measured(NamedTuple):
    """What is known of a model without its weights.

    Attributes:
        layers: its layers.
        costs: FLOPs per sequence; of the denoising objective, the mean over its denoisers.
        parameters: how many it has; ``layer_parameters`` of them in the layers.
        predictions: on how many positions of a sequence the vocabulary head runs; None for all.
        denoiser_costs: FLOPs per sequence of each denoiser.
    """

    layers: Layers
    costs: LayerCosts
    parameters: int
    layer_parameters: int
    predictions: int | None = None
    denoiser_costs: tuple[LayerCosts, ...] = ()


def measure(config: RunConfig, model_config: Any) -> Measured:
    """Count a model's layers, FLOPs and parameters; no memory is used."""
    model = build_model(config, model_config, device="meta")
    layers = find_layers(model)
    inside = sum(p.numel() for stack in layers.stacks for block in stack.blocks for p in block.parameters())
    if config.objective.name == "denoising":
        costs, *each = denoising_costs(config, model)
        return Measured(layers, costs, model.num_parameters(), inside, denoiser_costs=tuple(each))
    predictions = predictions_of(config, model)
    costs = count_flops(model, config.data.sequence_length, predictions=predictions)
    return Measured(layers, costs, model.num_parameters(), inside, predictions)
