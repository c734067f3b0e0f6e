"""Text in three made-up languages, a file for each, so that it can be seen how much of each was read."""

import random

LANGUAGES = ("abcdefgh", "ijklmnop", "qrstuvwx")
"""Letters of the languages, in the order of the names of their files."""


def lines(letters, count, seed=0):
    """Lines of words of some letters, each line another one."""
    draws = random.Random(f"{letters} {seed}")
    return [" ".join("".join(draws.choices(letters, k=5)) for _ in range(12)) for _ in range(count)]


def shares_of(text):
    """How much of the letters of a text are of each language."""
    counts = [sum(text.count(letter) for letter in letters) for letters in LANGUAGES]
    return [count / sum(counts) for count in counts]


def texts(folder, write_jsonl):
    """Write a text file of each language."""
    for letters in LANGUAGES:
        (folder / f"{letters[0]}.txt").write_text("\n".join(lines(letters, 2000)))


def records(folder, write_jsonl):
    """Write a file of records of each language."""
    for letters in LANGUAGES:
        write_jsonl(folder / f"{letters[0]}.jsonl", [{"text": line} for line in lines(letters, 2000)])
