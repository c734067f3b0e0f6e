"""How long a window of raw tokens a denoiser takes, so that what it makes of it fills its lengths.

    tokens n -> N taken out in S spans
    inputs  = [mode] kept tokens, a sentinel for each span, final    n - N + S + 1 (+ 1)
    targets = a sentinel and its span, for each span, final          N + S + 1

In an encoder-decoder each denoiser has a pair of lengths of its own (`Pair`); in a decoder-only model inputs and
targets stand in one sequence, of the same length for all, with as many examples in it as fill it (`Packed`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from raptr.errors import RaptrError
from raptr.objectives.denoiser import Denoiser


@dataclass(frozen=True)
class Example:
    """The numbers of one example.

    Args:
        tokens: raw tokens, n.
        noise: how many of them are taken out, N.
        spans: in how many spans, S.
        marked: whether a sentinel stands for each span; otherwise inputs and targets are the text as it is.
        mode: whether a mode token comes first.
        final: whether inputs (of a `Pair`) and targets end with the final token.
    """

    tokens: int
    noise: int
    spans: int
    marked: bool = True
    mode: bool = False
    final: bool = True

    @property
    def inputs(self) -> int:
        """Positions of the inputs, without their final token."""
        return self.mode + self.tokens - self.noise + self.marked * self.spans

    @property
    def targets(self) -> int:
        """Positions of the targets."""
        return self.noise + self.marked * self.spans + self.final


@dataclass(frozen=True)
class Pair:
    """The shape of a denoiser in an encoder-decoder.

    Args:
        denoiser: what it is the shape of.
        example: the one example of a sequence.
    """

    denoiser: Denoiser
    example: Example

    @property
    def tokens(self) -> int:
        """Raw tokens of a sequence."""
        return self.example.tokens

    @property
    def inputs(self) -> int:
        """Positions of the encoder."""
        return self.example.inputs + 1

    @property
    def targets(self) -> int:
        """Positions of the decoder."""
        return self.example.targets

    @property
    def predicted(self) -> int:
        """Positions with a loss."""
        return self.example.targets


@dataclass(frozen=True)
class Packed:
    """The shape of a denoiser in a decoder-only model.

    Args:
        denoiser: what it is the shape of.
        examples: those of a sequence, one after the other.
        length: positions of a sequence.
    """

    denoiser: Denoiser
    examples: tuple[Example, ...]
    length: int

    @property
    def tokens(self) -> int:
        """Raw tokens of a sequence."""
        return sum(example.tokens for example in self.examples)

    @property
    def padding(self) -> int:
        """Positions that are left over at the end."""
        return self.length - sum(example.inputs + example.targets for example in self.examples)

    @property
    def predicted(self) -> int:
        """Positions with a loss: the targets, but for a sequence's first position, which nothing predicts."""
        return sum(example.targets for example in self.examples) - (self.examples[0].inputs == 0)


Form = Pair | Packed


def pair(denoiser: Denoiser, length: int, *, sentinels: int = 100, mode: bool = False) -> Pair:
    """The longest window whose inputs and targets have at most ``length`` positions, and its pair of lengths.

    Inputs have ``length`` positions exactly, unless the targets would be longer than that or there would be more
    spans than sentinels: then both are shorter. Nothing is padding.

    Args:
        denoiser: the denoiser.
        length: positions of the encoder.
        sentinels: how many there are.
        mode: whether mode tokens are used.

    Raises:
        RaptrError: ``length`` is too short for the denoiser.

    Example:
        >>> shape = pair(Denoiser(span=3, rate=0.15), 512)
        >>> shape.tokens, shape.inputs, shape.targets
        (568, 512, 114)
    """
    has_mode = mode and denoiser.mode is not None
    for example in _examples(denoiser, 2 * length, sentinels, marked=True, mode=has_mode):
        if example.inputs + 1 <= length and example.targets <= length:
            return Pair(denoiser, example)
    raise too_short(denoiser, length)


def packed(denoiser: Denoiser, length: int, *, sentinels: int = 100, mode: bool = False) -> Packed:
    """The fewest, about equally long examples that fill ``length`` positions but for at most two.

    A prefix or causal language model has no sentinels here: its inputs and targets are the text as it is; of
    a causal one the targets have no final token either.

    Args:
        denoiser: the denoiser.
        length: positions of a sequence.
        sentinels: how many there are.
        mode: whether mode tokens are used.

    Raises:
        RaptrError: ``length`` is too short for the denoiser.

    Example:
        >>> shape = packed(Denoiser(span=3, rate=0.15), 512)
        >>> shape.tokens, len(shape.examples), shape.padding
        (465, 1, 0)
    """
    found = list(
        _examples(
            denoiser,
            length,
            sentinels,
            marked=denoiser.span is not None,
            mode=mode and denoiser.mode is not None,
            final=denoiser.rate < 1,
        )
    )
    sizes = [example.inputs + example.targets for example in found]  # falling
    if not found or sizes[-1] > length:
        raise too_short(denoiser, length)
    fewest = -(-length // max(size for size in sizes if size <= length))
    tries = []
    for count in range(max(1, fewest - 1), fewest + 2):
        examples, left = list[Example](), length
        for place in range(count):
            share = left // (count - place)
            fits = next((i for i, size in enumerate(sizes) if size <= share), None)
            if fits is None:
                break
            examples.append(found[fits])
            left -= sizes[fits]
        else:
            tries.append(Packed(denoiser, tuple(examples), length))
    return min(tries, key=lambda shape: (max(shape.padding, 2), len(shape.examples)))


def _examples(
    denoiser: Denoiser, most: int, sentinels: int, *, marked: bool, mode: bool, final: bool = True
) -> Iterator[Example]:
    """All that can be made with so many sentinels, from ``most`` raw tokens down."""
    for tokens in range(most, 0, -1):
        noise, spans = denoiser.counts(tokens)
        if spans and (spans <= sentinels or not marked):
            yield Example(tokens, noise, spans, marked, mode, final)


def too_short(denoiser: Denoiser, length: int) -> RaptrError:
    """What is said of a denoiser that finds no room for a span."""
    kind = f"mean span {denoiser.span:g}" if denoiser.span else "one span at the end"
    tokens = f"{_first_span(denoiser):,.0f}"
    return RaptrError(
        f"sequences of {length} positions are too short for a denoiser with {kind} and rate {denoiser.rate:g}, which "
        f"needs {tokens} tokens for its first span, and room for what is added to them; raise data.sequence_length, or "
        "leave this denoiser out."
    )


def _first_span(denoiser: Denoiser) -> float:
    """The fewest tokens that have a span, found without trying those below; about so many, if no text has them."""
    noise = 1 if denoiser.span is None else denoiser.span // 2 + 1  # half a span is none
    least = (noise - 0.5) / denoiser.rate
    if denoiser.rate < 1:
        least = max(least, 0.5 / (1 - denoiser.rate))  # and a token that is kept
    if least > 1e12:
        return least
    return next((n for n in range(int(least), int(least) + 1000) if denoiser.counts(n)[1]), least)
