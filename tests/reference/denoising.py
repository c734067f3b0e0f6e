"""T5's span corruption, one token at a time, in Python's own numbers; and how long a denoiser's windows are."""

import random

import numpy as np


def shape(n, rate, span):
    """(noise, spans) of n tokens."""
    if rate == 1:
        return n, 1
    noise = round(n * rate)
    return noise, (1 if span is None else round(noise / span))


def longest(rate, span, length, sentinels, extra):
    """The most raw tokens whose inputs and targets (with ``extra`` and 1 positions more) fit an encoder-decoder."""
    best = None
    for n in range(1, 2 * length + 1):
        noise, spans = shape(n, rate, span)
        room = spans >= 1 and (rate == 1 or (noise >= spans and n - noise >= spans)) and noise >= 1
        if room and spans <= sentinels and n - noise + spans + extra <= length and noise + spans + 1 <= length:
            best = n
    return best


def segment_lengths(n, noise, spans, seed, epoch, index, place):
    """The lengths of kept and taken parts in turn, cut where the words of the places to cut are smallest."""
    generator = np.random.Philox(
        key=np.array([seed, 20], np.uint64), counter=np.array([0, epoch, index, place], np.uint64)
    )
    words = []
    for word in generator.random_raw(n).tolist():
        words += [word % 2**32, word // 2**32]
    parts = []
    for total, mine in ((n - noise, words[noise - 1 : n - 2]), (noise, words[: noise - 1])):
        cuts = sorted(sorted(range(1, total), key=lambda place, mine=mine: mine[place - 1])[: spans - 1])
        parts.append([b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)])
    return [length for pair in zip(*parts, strict=True) for length in pair]


def corrupt(tokens, lengths, sentinels):
    """(inputs, targets) without mode and final tokens."""
    inputs, targets, place = [], [], 0
    for number, length in enumerate(lengths):
        part = tokens[place : place + length]
        place += length
        if number % 2 == 0:
            inputs += part
        else:
            inputs.append(sentinels[number // 2])
            targets += [sentinels[number // 2], *part]
    return inputs, targets


def t5_lengths(n, noise, spans, rng: random.Random):
    """The same lengths as T5's code draws them: ones among zeros, shuffled, say where a part begins."""

    def parts(total):
        begins = [1] * (spans - 1) + [0] * (total - spans)
        rng.shuffle(begins)
        lengths = [1]
        for begin in begins:
            if begin:
                lengths.append(1)
            else:
                lengths[-1] += 1
        return lengths

    return [length for pair in zip(parts(n - noise), parts(noise), strict=True) for length in pair]


def seen(sizes, padding):
    """Of every position, which others it sees: of (inputs, targets) sizes of the examples of a sequence."""
    places = []
    for number, (inputs, targets) in enumerate(sizes):
        places += [(number, True)] * inputs + [(number, False)] * targets
    places += [(len(sizes) + i, False) for i in range(padding)]
    return [
        [mine[0] == other[0] and (other[1] or k <= q) for k, other in enumerate(places)]
        for q, mine in enumerate(places)
    ]
