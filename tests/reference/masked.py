"""BERT's corruption with an exact count, one token at a time, in Python's own numbers."""

import numpy as np


def masked_sequence(
    tokens, *, seed, epoch, index, mask_id, vocab_size, special_ids, rate, masked_share, random_share, continues=None
):
    """The (inputs, labels) of one sequence, as lists; of whole words where ``continues`` names the ids that do."""
    length = len(tokens)
    generator = np.random.Philox(key=np.array([seed, 1], np.uint64), counter=np.array([0, epoch, index, 0], np.uint64))
    words = [int(word) for word in generator.random_raw(3 * length)]
    specials = {mask_id, *special_ids}
    ordinary = [token for token in range(vocab_size) if token not in specials]
    maskable = [place for place in range(length) if tokens[place] not in specials]
    count = max(1, round(rate * len(maskable)))
    inputs, labels = list(tokens), [-100] * length
    places = sorted(maskable, key=lambda place: words[place])[:count]
    if continues is not None:
        may = [place in maskable for place in range(length)]
        places = whole_words(words[:length], may, [token in continues for token in tokens], count)
    for place in places:
        labels[place] = tokens[place]
        fate = (words[length + place] // 2**11) / 2**53
        if fate < masked_share:
            inputs[place] = mask_id
        elif fate < masked_share + random_share:
            share = (words[2 * length + place] // 2**11) / 2**53
            inputs[place] = ordinary[int(share * len(ordinary))]
    return inputs, labels


def whole_words(words, maskable, continues, count):
    """The places of ``count`` tokens of one sequence, chosen by words, as a sorted list; one word at a time."""
    found, open_word = [], None
    for place, (may, goes_on) in enumerate(zip(maskable, continues, strict=True)):
        if not may:
            open_word = None
        elif goes_on and open_word is not None:
            open_word.append(place)
        else:
            open_word = [place]
            found.append(open_word)
    found = [part for word in found for part in ([word] if len(word) <= count else [[place] for place in word])]
    chosen, passed_over = [], []
    for word in sorted(found, key=lambda word: words[word[0]] // 2):
        if len(chosen) + len(word) <= count:
            chosen += word
        else:
            passed_over.append(word)
    if len(chosen) < count:
        chosen += passed_over[0][: count - len(chosen)]
    return sorted(chosen)
