"""Denoising, as in T5 and UL2: windows of tokens -> inputs with sentinels, and what they stand for.

B windows, of an encoder-decoder I positions of inputs and T of targets, of a decoder-only model T of both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from raptr.errors import RaptrError
from raptr.objectives.denoiser import Mode
from raptr.objectives.forms import Example, Form, Packed, Pair
from raptr.objectives.masked import IGNORED
from raptr.objectives.protocol import Ints, check
from raptr.objectives.spans import Int64s, segment_lengths

Batch = dict[str, npt.NDArray[Any]]
"""Whole numbers; truth values in a mask."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The ids of the tokens that denoising adds to a text.

    Args:
        sentinels: the first stands for the first span of a window, and so on.
        final: ends inputs and targets.
        pad: fills what is left over.
        start: what a decoder is given before the first target.
        modes: the mode tokens; empty where none are used.
    """

    sentinels: tuple[int, ...]
    final: int
    pad: int
    start: int
    modes: Mapping[Mode, int] = field(default_factory=dict)


def encoder_decoder(tokens: Ints, *, seed: int, epochs: Ints, indices: Ints, form: Pair, marks: Marks) -> Batch:
    """Inputs, decoder inputs and labels of one denoiser in an encoder-decoder.

        text     a b c d e f g h      (c d and g h taken out)
        inputs   [mode] a b <0> e f <1> final
        labels   <0> c d <1> g h final
        decoder  start <0> c d <1> g h

    Args:
        tokens: raw windows, shape (B, ``form.tokens``).
        seed: the run's seed.
        epochs: shape (B,): in which pass over the data each window is seen.
        indices: shape (B,): which window each one is.
        form: the denoiser and its pair of lengths, of `raptr.objectives.pair`.
        marks: the ids that are added.

    Returns:
        ``input_ids`` (B, I), ``decoder_input_ids`` and ``labels`` (B, T), int64. Nothing is padding.

    Raises:
        RaptrError: windows of another length, with sentinels in them, or more spans than sentinels.

    Example:
        >>> from raptr.objectives import Denoiser, pair
        >>> marks = Marks(sentinels=(99, 98), final=1, pad=0, start=0)
        >>> form = pair(Denoiser(rate=0.25), 8)
        >>> at = {"epochs": np.array([0]), "indices": np.array([0])}
        >>> batch = encoder_decoder(np.arange(10, 18)[None], seed=0, **at, form=form, marks=marks)
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[10, 11, 12, 13, 14, 15, 99, 1]], [[99, 16, 17, 1]])
    """
    _check(tokens, form, marks, epochs, indices)
    lengths = segment_lengths(form.example, seed=seed, epochs=epochs, indices=indices)
    inputs = np.empty((len(tokens), form.inputs), dtype=np.int64)
    targets, before = np.empty((2, len(tokens), form.targets), dtype=np.int64)
    _corrupt(tokens, lengths, form.example, form.denoiser.mode, marks, inputs[:, :-1], targets)
    inputs[:, -1] = marks.final
    before[:, 0], before[:, 1:] = marks.start, targets[:, :-1]
    return {"input_ids": inputs, "decoder_input_ids": before, "labels": targets}


def decoder_only(
    tokens: Ints, *, seed: int, epochs: Ints, indices: Ints, form: Packed, marks: Marks, prefix: bool = False
) -> Batch:
    """Inputs and labels of one denoiser in a decoder-only model, examples packed one behind the other.

        text     a b c d e f g h      (c d and g h taken out)
        inputs   [mode] a b <0> e f <1> <0> c d <1> g h final
        labels   -    - - -  -  - -   - <0> c d <1> g h final      (- is -100; compared with the position before)

    Args:
        tokens: raw windows, shape (B, ``form.tokens``).
        seed: the run's seed.
        epochs: shape (B,).
        indices: shape (B,).
        form: the denoiser and its examples, of `raptr.objectives.packed`.
        marks: the tokens that are added.
        prefix: whether every position sees all inputs of its own example, and no other example; otherwise nothing
            is said of attention, and a causal model sees all that comes before.

    Returns:
        ``input_ids`` and ``labels`` (B, T), int64; with ``prefix`` also ``attention_mask`` (B, 1, T, T), bool.

    Raises:
        RaptrError: as `encoder_decoder`.

    Example:
        >>> from raptr.objectives import Denoiser, packed
        >>> marks = Marks(sentinels=(99, 98), final=1, pad=0, start=0)
        >>> form = packed(Denoiser(rate=0.25), 9)
        >>> at = {"epochs": np.array([0]), "indices": np.array([0])}
        >>> decoder_only(np.arange(10, 18)[None], seed=0, **at, form=form, marks=marks)["labels"].tolist()
        [[-100, -100, -100, -100, -100, -100, 16, 17, 1]]
    """
    _check(tokens, form, marks, epochs, indices)
    inputs = np.full((len(tokens), form.length), marks.pad)
    labels = np.full((len(tokens), form.length), IGNORED)
    read = made = 0
    for place, example in enumerate(form.examples):
        lengths = segment_lengths(example, seed=seed, epochs=epochs, indices=indices, place=place)
        given = inputs[:, made : made + example.inputs]
        wanted = inputs[:, made + example.inputs : made + example.inputs + example.targets]
        mine = tokens[:, read : read + example.tokens]
        _corrupt(mine, lengths, example, form.denoiser.mode, marks, given, wanted)
        labels[:, made + example.inputs : made + example.inputs + example.targets] = wanted
        read, made = read + example.tokens, made + example.inputs + example.targets
    labels[:, 0] = IGNORED  # nothing comes before it
    batch: Batch = {"input_ids": inputs, "labels": labels}
    if prefix:
        batch["attention_mask"] = np.repeat(prefix_mask(form)[None, None], len(tokens), axis=0)
    return batch


def prefix_mask(form: Packed) -> npt.NDArray[np.bool_]:
    """Which position (row) sees which: of its own example all inputs, and the targets up to itself.

    A position that is padding sees itself.
    """
    sizes = [size for example in form.examples for size in (example.inputs, example.targets)] + [1] * form.padding
    part = np.repeat(np.arange(len(sizes)), sizes)
    example = np.where(part < 2 * len(form.examples), part // 2, part)
    given = (part % 2 == 0) & (part < 2 * len(form.examples))
    causal = np.tri(form.length, dtype=bool)
    seen: npt.NDArray[np.bool_] = (example[:, None] == example) & (causal | given)
    return seen


def _corrupt(
    tokens: Ints, lengths: Int64s, example: Example, mode: Mode | None, marks: Marks, given: Int64s, wanted: Int64s
) -> None:
    """Write the inputs, without a final token, and the targets of windows with segments of these lengths."""
    rows, size = tokens.shape
    if example.final:
        wanted[:, -1] = marks.final
        wanted = wanted[:, :-1]
    if example.mode and mode:
        given[:, 0] = marks.modes[mode]
        given = given[:, 1:]
    kept = size - example.noise
    if not example.marked:
        given[:], wanted[:] = tokens[:, :kept], tokens[:, kept:]
    elif not kept:
        given[:], wanted[:, :1], wanted[:, 1:] = marks.sentinels[0], marks.sentinels[0], tokens
    else:
        # A sentinel stands in the inputs where a span begins, and in the targets where what is kept before it does.
        begins = np.cumsum(lengths, axis=1) - lengths + np.arange(0, rows * size, size)[:, None]
        taken = np.repeat(np.tile((False, True), rows * example.spans), lengths.ravel())
        sentinels = np.array(marks.sentinels[: example.spans])
        given[:] = _in_place_of(begins[:, 1::2], sentinels, tokens, ~taken)
        wanted[:] = _in_place_of(begins[:, 0::2], sentinels, tokens, taken)


def _in_place_of(begins: Int64s, sentinels: Int64s, tokens: Ints, chosen: npt.NDArray[np.bool_]) -> Int64s:
    """The chosen tokens of each row, and a sentinel where each segment begins that is not chosen."""
    rows, marked = len(tokens), tokens.astype(np.int64, order="C").ravel()
    marked[begins], chosen[begins] = sentinels, True
    return marked[chosen].reshape(rows, -1)


def _check(tokens: Ints, form: Form, marks: Marks, epochs: Ints, indices: Ints) -> None:
    check(tokens)
    if tokens.shape[1] != form.tokens:
        raise RaptrError(
            f"windows of {tokens.shape[1]} tokens were given to a denoiser that takes {form.tokens} at a time "
            f"({form}); cut them to that."
        )
    if epochs.shape != (len(tokens),) or indices.shape != (len(tokens),):
        raise RaptrError(
            f"epochs has the shape {epochs.shape} and indices {indices.shape}; expected ({len(tokens)},) each: one "
            "number for every window."
        )
    examples = (form.example,) if isinstance(form, Pair) else form.examples
    most = max(example.spans if example.marked else 0 for example in examples)
    if most > len(marks.sentinels):
        raise RaptrError(
            f"there are {len(marks.sentinels)} sentinels, and {most} spans in a window; give at least as many."
        )
    if most and tokens.size and tokens.max() >= min(marks.sentinels) and np.isin(tokens, marks.sentinels).any():
        raise RaptrError(
            "there are sentinels in the text, so what is taken out could not be told; tokenize it without reading "
            "special tokens from it."
        )


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Windows of several denoisers -> one batch.

    Args:
        forms: the shape of every denoiser, all of one kind.
        marks: the ids that are added.
        seed: the run's seed.
        prefix: see `decoder_only`.
    """

    forms: tuple[Form, ...]
    marks: Marks
    seed: int
    prefix: bool = False

    def __call__(self, windows: Sequence[Ints], *, epochs: Ints, indices: Ints, denoisers: Ints) -> Batch:
        """A batch; ``denoisers`` says for every window which form it is of.

        Where an encoder-decoder's windows are of several, which is so in validation only, the shorter ones are
        padded, and an ``attention_mask`` says so.
        """
        kinds = np.unique(denoisers).tolist()
        made, order = list[Batch](), list[Int64s]()
        for kind in kinds:
            rows = np.flatnonzero(denoisers == kind)
            order.append(rows)
            made.append(
                self._of_one(np.stack([windows[row] for row in rows.tolist()]), epochs[rows], indices[rows], kind)
            )
        if len(made) == 1:
            return made[0]
        if isinstance(self.forms[0], Pair):
            made = self._padded(made)
        back = np.argsort(np.concatenate(order), kind="stable")
        return {name: np.concatenate([batch[name] for batch in made])[back] for name in made[0]}

    def _of_one(self, tokens: Ints, epochs: Ints, indices: Ints, kind: int) -> Batch:
        form = self.forms[kind]
        if isinstance(form, Pair):
            return encoder_decoder(tokens, seed=self.seed, epochs=epochs, indices=indices, form=form, marks=self.marks)
        return decoder_only(
            tokens, seed=self.seed, epochs=epochs, indices=indices, form=form, marks=self.marks, prefix=self.prefix
        )

    def _padded(self, made: Sequence[Batch]) -> list[Batch]:
        fill = {
            "input_ids": self.marks.pad,
            "attention_mask": 0,
            "decoder_input_ids": self.marks.pad,
            "labels": IGNORED,
        }
        whole = [{**batch, "attention_mask": np.ones_like(batch["input_ids"])} for batch in made]
        longest = {name: max(batch[name].shape[1] for batch in whole) for name in fill}
        return [
            {
                name: np.pad(batch[name], ((0, 0), (0, longest[name] - batch[name].shape[1])), constant_values=value)
                for name, value in fill.items()
            }
            for batch in whole
        ]
