"""Texts to measure with: of a vocabulary's words, each of them one token, the same every time; or a collection's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer

from common import beir

SPECIAL = 2  # tokens that a BERT tokenizer adds
MEDIAN, SIGMA, LONGEST = 78, 0.85, 510  # words: with the special tokens 80, and 512 at most (3 % of all texts)
EVEN = (88, 108)

Dice = random.Random


def mixed(dice: Dice) -> int:
    """Words of a text, log-normal: most are short, a few very long."""
    return max(3, min(LONGEST, round(MEDIAN * dice.lognormvariate(0, SIGMA))))


def even(dice: Dice) -> int:
    """Words of a text when all are about equally long: 90 to 110 tokens."""
    return dice.randint(*EVEN)


def generated(tokenizer: Path, length: Callable[[Dice], int], seed: int = 0) -> Iterator[str]:
    """Texts without end."""
    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    words = sorted(word for word in vocabulary if len(word) > 2 and word.isascii() and word.isalpha())
    dice = Dice(seed)
    while True:
        yield " ".join(dice.choices(words, k=length(dice)))


def collected(folder: Path, documents: int) -> list[str]:
    """The first documents of a collection in BEIR's layout.

    Raises:
        DataError: the folder is no BEIR folder.
    """
    return [document.text for document in beir.load(folder, documents).documents()]


def write(documents: Iterable[str], path: Path) -> None:
    """One text a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{' '.join(text.split())}\n" for text in documents)


def lengths(tokenizer: Path, documents: list[str], most: int) -> dict[str, int]:
    """How long texts are, in tokens."""
    read = Tokenizer.from_file(str(tokenizer))
    found = sorted(min(len(tokens.ids), most) for tokens in read.encode_batch(documents))
    return {
        "sum": sum(found),
        "median": found[len(found) // 2],
        "95 %": found[int(0.95 * (len(found) - 1))],
        "longest": found[-1],
    }
