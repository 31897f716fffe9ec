"""MiniCOIL: BM25 in which vocabulary words carry a small vector of their meaning in the sentence.

Qdrant, 2025; ids and values as in fastembed 0.9.1, sparse/minicoil.py. For each word of its vocabulary the model has a
matrix that projects the mean of the word's token embeddings to 4 dimensions. Other words are plain BM25 terms, with ids
above those of the vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastrank.bm25.terms import stemmer, stopwords, term_id
from fastrank.engine.batching import Batch
from fastrank.engine.pooling import Floats
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models.config import read_object
from fastrank.sparse.embedding import SparseEmbedding

WEIGHTS, VOCABULARY = "minicoil.triplet.model.npy", "minicoil.triplet.model.vocab"
_GAP = 32_000  # ids of other words start at a multiple of it
_LARGEST = 2**31 - 1
_LONGEST_WORD = 40
_MAX_VOCABULARY = 100_000_000  # bytes
_TINY = 1e-8
_NOT_WORD = re.compile(r"[^\w\s]")


class MiniCOIL:
    """The vocabulary and its matrices.

    Args:
        folder: has `minicoil.triplet.model.npy`, float32 (words + 1, hidden, 4), and `minicoil.triplet.model.vocab`.
        tokenizer: the model's WordPiece tokenizer.
        k: term-frequency saturation (k1).
        b: length normalization, 0 none to 1 full.
        avg_len: words in an average document.

    Raises:
        ModelLoadError: one of the files is missing or damaged.
    """

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, *, k: float = 1.2, b: float = 0.75, avg_len: float = 150.0
    ) -> None:
        try:
            content = read_object(folder / VOCABULARY, _MAX_VOCABULARY)
            self._ids: dict[str, int] = {word: word_id for word_id, word in enumerate(content["vocab"], 1)}
            self._of_stem: dict[str, str] = dict(content["stem_mapping"])
            self._matrices: NDArray[np.float32] = np.load(folder / WEIGHTS, mmap_mode="r", allow_pickle=False)
            rows, _, self._dim = self._matrices.shape
        except (ModelLoadError, OSError, ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{folder} has no usable MiniCOIL vocabulary: {error}") from error
        if rows <= len(self._ids):
            raise ModelLoadError(f"{folder / WEIGHTS} has {rows} matrices for {len(self._ids)} words")
        self._words = ["", *self._ids]
        self._vocab = tokenizer.vocab
        self._special = {self._vocab[token_id] for token_id in tokenizer.special_ids}
        self._stop = stopwords("english")
        self._stem = stemmer("english")
        self._k, self._b, self._avg_len = k, b, avg_len
        self._first_other = ((len(self._ids) + 1) * self._dim // _GAP + 2) * _GAP

    def documents(self, output: Floats, batch: Batch) -> list[SparseEmbedding]:
        """(texts, tokens, hidden) -> float32 vectors, weighted by BM25's term-frequency saturation."""
        return [self._vector(*each, weigh=True) for each in self._texts(output, batch)]

    def queries(self, output: Floats, batch: Batch) -> list[SparseEmbedding]:
        """(texts, tokens, hidden) -> float32 vectors; repeated words count once."""
        return [self._vector(*each, weigh=False) for each in self._texts(output, batch)]

    @staticmethod
    def _texts(output: Floats, batch: Batch) -> Iterator[tuple[Floats, list[int]]]:
        if output.ndim != 3:
            raise ModelLoadError(f"the model's output has shape {output.shape}, MiniCOIL needs (texts, tokens, hidden)")
        for states, ids, length in zip(output, batch.ids, batch.mask.sum(axis=1), strict=True):
            yield states[:length], ids[:length].tolist()

    def _vector(self, states: Floats, ids: Sequence[int], *, weigh: bool) -> SparseEmbedding:
        positions: dict[int, list[int]] = {}  # vocabulary id -> positions of its tokens
        counts: dict[str, int] = {}  # of words, those of the vocabulary first
        others: dict[str, int] = {}
        for word, word_positions in self._whole_words(ids):
            if word_id := self._word_id(word):
                positions.setdefault(word_id, []).extend(word_positions)
                counts[self._words[word_id]] = counts.get(self._words[word_id], 0) + 1
            else:
                others[word] = others.get(word, 0) + 1
        for word, count in others.items():
            for stem in self._terms(word):
                counts[stem] = counts.get(stem, 0) + count
        length = sum(counts.values())
        values: dict[int, float] = {}
        for word, count in counts.items():
            weight = self._saturated(count, length) if weigh else 1.0
            word_id = self._ids.get(word, 0)
            if word_id in positions:
                meaning = np.tanh(states[positions[word_id]].mean(axis=0) @ self._matrices[word_id])
                norm = float(np.linalg.norm(meaning))
                for offset, value in enumerate(meaning / norm if norm >= _TINY else meaning):
                    values[word_id * self._dim + offset] = float(value) * weight
            else:
                other_id = self._first_other + term_id(word) % (_LARGEST - self._first_other)
                values[other_id] = values.get(other_id, 0.0) + weight
        return SparseEmbedding(
            values=np.fromiter(values.values(), np.float32, len(values)),
            indices=np.fromiter(values, np.int64, len(values)),
        )

    def _whole_words(self, ids: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        word, positions = "", list[int]()
        for position, token_id in enumerate(ids):
            token = self._vocab[token_id] or ""
            if token.startswith("##"):
                word += token[2:]
            else:
                if word:
                    yield word, positions
                word, positions = token, []
            positions.append(position)
        if word:
            yield word, positions

    def _word_id(self, word: str) -> int:
        """The vocabulary id of a word, or of a word with the same stem; 0 if there is none, or for stop words."""
        if word in self._stop:
            return 0
        if word_id := self._ids.get(word):
            return word_id
        same_stem = self._of_stem.get(word) or self._of_stem.get(self._stem(word))
        return self._ids.get(same_stem, 0) if same_stem else 0

    def _terms(self, word: str) -> Iterator[str]:
        """A word that is not in the vocabulary, as BM25 terms."""
        if not self._dropped(word):
            for part in _NOT_WORD.sub(" ", word).split():
                stem = self._stem(part)
                if len(stem) <= _LONGEST_WORD and not self._dropped(stem):
                    yield stem

    def _dropped(self, word: str) -> bool:
        punctuation = len(word) == 1 and unicodedata.category(word).startswith("P")
        return punctuation or word in self._special or word in self._stop

    def _saturated(self, count: int, length: int) -> float:
        return count * (self._k + 1) / (count + self._k * (1 - self._b + self._b * length / self._avg_len))
