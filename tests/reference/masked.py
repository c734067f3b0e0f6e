"""BERT's corruption with an exact count, one token at a time, in Python's own numbers."""

import numpy as np


def masked_sequence(tokens, *, seed, epoch, index, mask_id, vocab_size, special_ids, rate, masked_share, random_share):
    """The (inputs, labels) of one sequence, as lists."""
    length = len(tokens)
    generator = np.random.Philox(key=np.array([seed, 1], np.uint64), counter=np.array([0, epoch, index, 0], np.uint64))
    words = [int(word) for word in generator.random_raw(3 * length)]
    specials = {mask_id, *special_ids}
    ordinary = [token for token in range(vocab_size) if token not in specials]
    maskable = [place for place in range(length) if tokens[place] not in specials]
    count = max(1, round(rate * len(maskable)))
    inputs, labels = list(tokens), [-100] * length
    for place in sorted(maskable, key=lambda place: words[place])[:count]:
        labels[place] = tokens[place]
        fate = (words[length + place] // 2**11) / 2**53
        if fate < masked_share:
            inputs[place] = mask_id
        elif fate < masked_share + random_share:
            share = (words[2 * length + place] // 2**11) / 2**53
            inputs[place] = ordinary[int(share * len(ordinary))]
    return inputs, labels
