"""FastEmbed's SparseTextEmbedding, and the Bm25 that it keeps inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastrank
from fastrank.bm25 import BM25, terms
from fastrank.bm25.languages import LANGUAGES
from fastrank.bm25.weights import Stemmer
from fastrank.compat import descriptions
from fastrank.compat.facade import FastEmbedModel
from fastrank.compat.utils import SimpleTokenizer, get_all_punctuation
from fastrank.errors import ModelNotFoundError
from fastrank.models.spec import SPARSE_EMBEDDING, ModelSpec, SparseTask
from fastrank.sparse.bm25_encoder import BM25Encoder
from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.sparse_text_embedding import OPTIONS

_FASTEMBEDS = {  # options of sparse models; fastrank has more
    *("language", "k", "b", "avg_len", "token_max_length", "disable_stemmer", "stemmer", "stopwords", "alpha"),
}
_DTYPES = {  # of ids and values, where they differ from fastrank's
    "splade": (np.int64, np.float64),
    "bm42": (np.int64, np.float64),
    "minicoil": (np.int32, np.float32),
}


class SparseTextEmbedding(FastEmbedModel, fastrank.SparseTextEmbedding):
    """`fastrank.SparseTextEmbedding` with FastEmbed's limits and number types."""

    task = SPARSE_EMBEDDING

    @property
    def model(self) -> Any:
        """For BM25 a `Bm25`, whose settings are this model's; else see `Implementation`."""
        return super().model if self._encoder is None else self._inner

    @cached_property
    def _inner(self) -> Bm25:
        return Bm25.inside(self)

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Any,
    ) -> Iterator[SparseEmbedding]:
        """Vectors of documents; see `fastrank.SparseTextEmbedding.embed`."""
        self._run(options)
        return self._typed(super().embed(documents, batch_size, parallel))

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[SparseEmbedding]:
        """Vectors of queries; see `fastrank.SparseTextEmbedding.query_embed`."""
        (self._ignore if self._looks_queries_up() else self._run)(options)
        return self._typed(super().query_embed(query, batch_size, parallel))

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[SparseEmbedding]:
        """Vectors of passages: the same as `embed`."""
        self._run(options)
        return self._typed(super().passage_embed(texts, batch_size, parallel))

    def token_count(  # type: ignore[override]
        self, texts: str | Iterable[str], batch_size: int = 1024, **options: Any
    ) -> int:
        """Tokens of all texts; see `fastrank.SparseTextEmbedding.token_count`."""
        self._ignore(options)
        return super().token_count(texts, batch_size)

    def _known_options(self, spec: ModelSpec) -> frozenset[str]:
        kind = spec.task(SPARSE_EMBEDDING, SparseTask).kind
        return super()._known_options(spec) | (OPTIONS[kind] & _FASTEMBEDS)

    def _looks_queries_up(self) -> bool:
        """Whether queries need no session."""
        task = self._inside.spec.task(SPARSE_EMBEDDING, SparseTask)
        return task.kind in ("bm25", "bm42") or task.query_weights is not None

    def _typed(self, vectors: Iterator[SparseEmbedding]) -> Iterator[SparseEmbedding]:
        kind = self._inside.spec.task(SPARSE_EMBEDDING, SparseTask).kind
        return map(partial(_as_type, *_DTYPES[kind]), vectors) if kind in _DTYPES else vectors


class _Setting:
    """A setting of `Bm25`. A new value counts from the next call on."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, bm25: Bm25 | None, _owner: type | None = None) -> Any:
        return self if bm25 is None else bm25.encoder.bm25.settings()[self._name]

    def __set__(self, bm25: Bm25, value: Any) -> None:
        bm25.encoder.bm25 = BM25(**{**bm25.encoder.bm25.settings(), self._name: value})


class Bm25(SparseTextEmbedding):
    """BM25, with the arguments and attributes of `fastembed.sparse.bm25.Bm25`.

    Raises:
        ModelNotFoundError: the name is not BM25's.
        ValueError: an unknown language, or settings that exclude each other.
    """

    language = _Setting("language")
    k = _Setting("k")
    b = _Setting("b")
    avg_len = _Setting("avg_len")
    token_max_length = _Setting("token_max_length")
    disable_stemmer = _Setting("disable_stemmer")
    tokenizer = SimpleTokenizer

    def __init__(
        self,
        model_name: str = "Qdrant/bm25",
        cache_dir: str | Path | None = None,
        k: float = 1.2,
        b: float = 0.75,
        avg_len: float = 256.0,
        language: str = "english",
        token_max_length: int = 40,
        disable_stemmer: bool = False,
        specific_model_path: str | Path | None = None,
        stemmer: Stemmer | None = None,
        stopwords: Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        if descriptions.find(model_name, SPARSE_EMBEDDING).task(SPARSE_EMBEDDING, SparseTask).kind != "bm25":
            raise ModelNotFoundError(f"Model {model_name} is not supported in Bm25; use SparseTextEmbedding.")
        super().__init__(
            model_name,
            cache_dir,
            k=k,
            b=b,
            avg_len=avg_len,
            language=language,
            token_max_length=token_max_length,
            disable_stemmer=disable_stemmer,
            specific_model_path=specific_model_path,
            stemmer=stemmer,
            stopwords=stopwords,
            **options,
        )

    @classmethod
    def inside(cls, embedding: SparseTextEmbedding) -> Bm25:
        """The BM25 of a SparseTextEmbedding: what is set here counts there."""
        bm25: Bm25 = object.__new__(cls)
        vars(bm25).update(vars(embedding))
        return bm25

    @property
    def encoder(self) -> BM25Encoder:
        """What holds the settings."""
        assert self._encoder is not None  # noqa: S101 - for type checkers
        return self._encoder

    @property
    def model(self) -> Any:
        """Nothing: BM25 has no session.

        Raises:
            AttributeError: always, as in FastEmbed.
        """
        raise AttributeError("Bm25 runs no model")

    @cached_property
    def punctuation(self) -> set[str]:
        """Tokens that `_stem` leaves out: every character of a Unicode category P*."""
        return get_all_punctuation()

    @property
    def stopwords(self) -> set[str]:
        """The words that are left out. Assign a set to change them."""
        settings = self.encoder.bm25.settings()
        if settings["stopwords"] is not None:
            return set(settings["stopwords"])
        known = settings["language"] in LANGUAGES and not settings["disable_stemmer"]
        return set(terms.stopwords(settings["language"])) if known else set()

    @stopwords.setter
    def stopwords(self, words: Iterable[str]) -> None:
        _Setting("stopwords").__set__(self, words)

    @property
    def stemmer(self) -> Any:
        """An object with `stem_word`; None with `disable_stemmer`."""
        settings = self.encoder.bm25.settings()
        if settings["disable_stemmer"]:
            return None
        return settings["stemmer"] or SimpleNamespace(stem_word=terms.stemmer(settings["language"]))

    @stemmer.setter
    def stemmer(self, stemmer: Stemmer | None) -> None:
        _Setting("stemmer").__set__(self, stemmer)

    def raw_embed(self, documents: list[str]) -> list[SparseEmbedding]:
        """Vectors of a batch of documents."""
        return list(self.embed(documents))

    @classmethod
    def compute_token_id(cls, token: str) -> int:
        """The id of a term, as it is: not stemmed."""
        return terms.term_id(token)

    def _stem(self, tokens: list[str]) -> list[str]:
        """The terms of words: without punctuation, stop words and words that are too long; stemmed."""
        stop, longest, stemmer = self.stopwords, self.token_max_length, self.stemmer
        stems = []
        for token in tokens:
            word = token.lower()
            if token in self.punctuation or word in stop or len(token) > longest:
                continue
            if stem := word if stemmer is None else stemmer.stem_word(word):
                stems.append(stem)
        return stems


def _as_type(ids: type, values: type, vector: SparseEmbedding) -> SparseEmbedding:
    return SparseEmbedding(values=vector.values.astype(values), indices=vector.indices.astype(ids))
