"""Milvus: rerank functions and embedding functions with the calls of PyMilvus' own, which need PyTorch.

>>> from fastrank.integrations.milvus import BGERerankFunction
>>> rerank = BGERerankFunction("BAAI/bge-reranker-base")
>>> rerank("why is the sky blue", [hit["entity"]["text"] for hit in hits], top_k=3)
[RerankResult(text='...', score=0.98..., index=4), ...]

Dense vectors are float32 arrays, sparse ones dicts of id and value, as `insert`, `search` and `hybrid_search` of
`MilvusClient` take them. The classes are subclasses of PyMilvus' base classes where `pymilvus[model]` is installed,
but do not need it. Each model is loaded once per process, at its first use. Works with PyMilvus 2.5 and newer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrank import environment, inputs
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import device_options, shared
from fastrank.late_interaction import LateInteractionTextEmbedding
from fastrank.models import registry
from fastrank.models.spec import SPARSE_EMBEDDING, SparseTask
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

__all__ = [
    "BGERerankFunction",
    "BM25EmbeddingFunction",
    "ColbertRerankFunction",
    "CrossEncoderRerankFunction",
    "DenseEmbeddingFunction",
    "RerankResult",
    "SparseEmbeddingFunction",
]

SparseVector: TypeAlias = "dict[int, float]"


@dataclass
class _RerankResult:
    """A ranked document, with the attributes of PyMilvus' class.

    Attributes:
        text: the document.
        score: higher is better.
        index: its position among the documents given.
    """

    text: str
    score: float
    index: int

    def to_dict(self) -> dict[str, Any]:
        """The three attributes."""
        return asdict(self)


with required("milvus"):
    import pymilvus  # noqa: F401 - fails now and not at the first insert
environment.silence_onnxruntime_telemetry()  # pymilvus.model imports onnxruntime
try:
    from pymilvus.model.base import BaseEmbeddingFunction, BaseRerankFunction, RerankResult
except ImportError:  # an extra of PyMilvus
    BaseEmbeddingFunction = BaseRerankFunction = object
    RerankResult = _RerankResult

# -- rerank functions --------------------------------------------------------------------------------------------------


class _RerankFunction(BaseRerankFunction):
    """A model that scores documents for a query, as PyMilvus calls it."""

    def __init__(
        self,
        model: TextCrossEncoder | LateInteractionTextEmbedding,
        batch_size: int,
        activation: Callable[[NDArray[np.float64]], ArrayLike] | None = None,
    ) -> None:
        self.model = model
        self.model_name = model.model_name
        self.batch_size = batch_size
        self._activation = activation

    def __call__(self, query: str, documents: Iterable[str], top_k: int | None = 5) -> list[RerankResult]:
        """The best documents, best first; ties keep their order.

        Args:
            query: one text.
            documents: texts.
            top_k: how many to return; None or 0: all.

        Raises:
            TypeError: the query or a document is no string; the message says which.
            ValueError: `top_k` is negative.
        """
        most = inputs.positive(top_k, "top_k") if top_k else None
        texts = list(inputs.documents(documents))
        scores = np.array(list(self.model.rerank(query, texts, batch_size=self.batch_size)), np.float64)
        if self._activation is not None:
            scores = np.asarray(self._activation(scores), np.float64)
        best = np.argsort(-scores, kind="stable")[:most].tolist()
        return [RerankResult(text=texts[index], score=float(scores[index]), index=index) for index in best]


class BGERerankFunction(_RerankFunction):
    """Reranks with a cross-encoder; scores are between 0 and 1.

    Args:
        model_name: a cross-encoder of fastrank's registry.
        use_fp16: accepted for compatibility; the precision is that of the model's files.
        batch_size: the largest batch of pairs.
        normalize: whether a sigmoid is applied; False: raw logits.
        device: None, "cpu", "cuda" or "cuda:1".
        query_max_length: accepted for compatibility; the document is truncated, the query only if it alone is too long.
        max_length: maximum tokens of a pair, special tokens included.
        **options: further arguments of `fastrank.TextCrossEncoder`, such as `cache_dir`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-reranker-v2-m3",
        use_fp16: bool = True,
        batch_size: int = 32,
        normalize: bool = True,
        device: str | None = None,
        query_max_length: int = 256,
        max_length: int = 512,
        **options: Any,
    ) -> None:
        del use_fp16, query_max_length
        activation = "sigmoid" if normalize else "none"
        own = {"activation": activation, "max_length": max_length, "truncation": "only_second"}
        model = shared(TextCrossEncoder, model_name, **{**device_options(device), **own, **options})
        super().__init__(model, batch_size)
        self.normalize = normalize


class CrossEncoderRerankFunction(_RerankFunction):
    """Reranks with a cross-encoder; scores are raw logits by default.

    Args:
        model_name: a cross-encoder of fastrank's registry.
        device: None or "", "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch of pairs.
        activation_fct: maps the array of logits to scores.
        **options: further arguments of `fastrank.TextCrossEncoder`, such as `activation="sigmoid"`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`.
    """

    def __init__(
        self,
        model_name: str = "Xenova/ms-marco-MiniLM-L-6-v2",
        device: str | None = None,
        batch_size: int = 32,
        activation_fct: Callable[[NDArray[np.float64]], ArrayLike] | None = None,
        **options: Any,
    ) -> None:
        model = shared(TextCrossEncoder, model_name, **{**device_options(device), **options})
        super().__init__(model, batch_size, activation_fct)


class ColbertRerankFunction(_RerankFunction):
    """Reranks with a late-interaction model by MaxSim: the sum of each query token's best match.

    Args:
        model_name: a late interaction model of fastrank's registry.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch of documents.
        **options: further arguments of `fastrank.LateInteractionTextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.LateInteractionTextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "colbert-ir/colbertv2.0",
        device: str | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        model = shared(LateInteractionTextEmbedding, model_name, **{**device_options(device), **options})
        super().__init__(model, batch_size)


# -- embedding functions -----------------------------------------------------------------------------------------------


class DenseEmbeddingFunction(BaseEmbeddingFunction):
    """Dense embeddings for FLOAT_VECTOR fields.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        batch_size: the largest batch.
        device: None, "cpu", "cuda" or "cuda:1".
        **options: further arguments of `fastrank.TextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        batch_size: int = 32,
        device: str | None = None,
        **options: Any,
    ) -> None:
        self.model = shared(TextEmbedding, model_name, **{**device_options(device), **options})
        self.model_name = self.model.model_name
        self.batch_size = batch_size

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.model.embedding_size

    def __call__(self, texts: Iterable[str]) -> list[NDArray[np.float32]]:
        """Embeddings of texts without prompts: float32 of shape (dim,)."""
        return list(self.model.embed(texts, batch_size=self.batch_size))

    def encode_documents(self, documents: Iterable[str]) -> list[NDArray[np.float32]]:
        """Vectors of documents, with the model's prompt if it has one."""
        return list(self.model.passage_embed(documents, batch_size=self.batch_size))

    def encode_queries(self, queries: Iterable[str]) -> list[NDArray[np.float32]]:
        """Vectors of queries, with the model's prompt if it has one."""
        return list(self.model.query_embed(queries, batch_size=self.batch_size))


class SparseEmbeddingFunction(BaseEmbeddingFunction):
    """Learned sparse vectors (the SPLADE family) for SPARSE_FLOAT_VECTOR fields with metric "IP".

    A text without terms has an empty vector, which milvus-lite 3 refuses to store.

    Args:
        model_name: a model of `fastrank.SparseTextEmbedding` that leaves no IDF to the store.
        batch_size: the largest batch.
        device: None, "cpu", "cuda" or "cuda:1".
        **options: further arguments of `fastrank.SparseTextEmbedding`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        ValueError: the model's vectors need an IDF, which Milvus does not apply.
        TypeError: as `fastrank.SparseTextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "prithivida/Splade_PP_en_v1",
        batch_size: int = 32,
        device: str | None = None,
        **options: Any,
    ) -> None:
        self.model = shared(SparseTextEmbedding, model_name, **{**device_options(device), **options})
        self.model_name = self.model.model_name
        self.batch_size = batch_size
        self._task = registry.find(model_name, SPARSE_EMBEDDING).task(SPARSE_EMBEDDING, SparseTask)
        if self._task.requires_idf:
            raise ValueError(
                f"{self.model_name} leaves the IDF to the store, and Milvus applies none to vectors it is given. "
                "Use BM25EmbeddingFunction, or a model of the SPLADE family."
            )

    @property
    def dim(self) -> int | None:
        """The vocabulary size, if it is known. Milvus does not ask for it."""
        return self._task.vocab_size

    def __call__(self, texts: Iterable[str]) -> list[SparseVector]:
        """Vectors of texts: the same as of documents."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Iterable[str]) -> list[SparseVector]:
        """Vectors of documents, each a dict of id and value."""
        return [vector.as_dict() for vector in self.model.embed(documents, batch_size=self.batch_size)]

    def encode_queries(self, queries: Iterable[str]) -> list[SparseVector]:
        """Vectors of queries, each a dict of id and value."""
        return [vector.as_dict() for vector in self.model.query_embed(queries, batch_size=self.batch_size)]


class BM25EmbeddingFunction(BaseEmbeddingFunction):
    """BM25 for SPARSE_FLOAT_VECTOR fields with metric "IP": the IDF is in the documents' vectors.

    Needs no model files. Average length and IDF come from a corpus, which `fit` must see before documents are encoded;
    `save` and pickle keep them. Queries do not need them. A text without terms has an empty vector, which milvus-lite 3
    refuses to store.

    Args:
        analyzer: as `fastrank.SparseTextEmbedding` has it: None, "unicode", "bigram", or a function from a text to its
            terms.
        corpus: texts to `fit` to.
        k1: term-frequency saturation.
        b: length normalization, 0 none to 1 full.
        language: of the stemmer and stop words.
        **options: further BM25 arguments of `fastrank.SparseTextEmbedding`, such as `stopwords`.

    Raises:
        TypeError, ValueError: as `fastrank.SparseTextEmbedding`.
    """

    dim = 2**31 + 1  # ids are hashes

    def __init__(
        self,
        analyzer: Any = None,
        corpus: Iterable[str] | None = None,
        k1: float = 1.2,
        b: float = 0.75,
        language: str | None = None,
        **options: Any,
    ) -> None:
        own = {"analyzer": analyzer, "k": k1, "b": b, "language": language, "avg_len": "auto", "idf": True}
        self.model = SparseTextEmbedding("Qdrant/bm25", **{**own, **options})
        if corpus is not None:
            self.fit(corpus)

    def fit(self, corpus: Iterable[str]) -> None:
        """Compute average length and IDF of a corpus, replacing earlier statistics.

        Raises:
            TypeError: a text is no string; the message says which.
            ValueError: the corpus has no words.
        """
        self.model.fit(corpus)

    def save(self, path: str | Path) -> None:
        """Write average length, IDF and the settings they belong to into one file, replaced when it is complete.

        The file is fastrank's own, not PyMilvus' JSON, whose ids are another numbering of words.
        """
        self.model.save_statistics(path)

    def load(self, path: str | Path) -> None:
        """Read the file of `save`, in place of `fit`.

        Raises:
            FileNotFoundError: there is no such file.
            ModelLoadError: the file is damaged, or another kind of file, such as one of PyMilvus' own class.
            ValueError: it was saved with settings that give other terms, such as another language or analyzer.
        """
        self.model.load_statistics(path)

    def __call__(self, texts: Iterable[str]) -> list[SparseVector]:
        """Vectors of texts: the same as of documents."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Iterable[str]) -> list[SparseVector]:
        """Vectors of documents, each a dict of id and value.

        Raises:
            ValueError: `fit` has not been called.
        """
        return [vector.as_dict() for vector in self.model.embed(documents)]

    def encode_queries(self, queries: Iterable[str]) -> list[SparseVector]:
        """Vectors of queries, each a dict of id and 1.0."""
        return [vector.as_dict() for vector in self.model.query_embed(queries)]
