"""Made-up text, and a WordPiece and a Unigram tokenizer that were trained on it."""

import random

from raptr.data.tokens.train_tokenizer import train_kind


def sentences(count: int = 400, seed: int = 0) -> list[str]:
    """Made-up text of words that share their parts, with capitals, digits and accents."""
    draw = random.Random(seed)
    parts = ["ba", "lo", "mi", "tru", "ken", "sol", "ver", "dax", "é", "ou", "Nor", "X", "4", "17"]
    words = ["".join(draw.choices(parts, k=draw.randint(1, 4))) for _ in range(150)]
    return [" ".join(draw.choices(words, k=12)) + ", and so\ton.\n" for _ in range(count)]


TEXT = sentences()
SIZES = {"wordpiece": 180, "unigram": 120}
"""The size of each tokenizer's vocabulary, by its kind."""

TRAINED = {kind: train_kind(kind, TEXT, size) for kind, size in SIZES.items()}
"""The tokenizers, by their kind."""
