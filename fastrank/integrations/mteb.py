"""mteb: every kind of fastrank's models as a model that mteb evaluates.

>>> import mteb
>>> from fastrank.integrations.mteb import FastrankEncoder
>>> mteb.evaluate(FastrankEncoder("BAAI/bge-small-en-v1.5"), mteb.get_tasks(["NFCorpus"]))

`FastrankEncoder` has mteb's encoder protocol, `FastrankCrossEncoder` that of cross-encoders, `FastrankLateInteraction`
and `FastrankSparse` (BM25 too) that of search. A model is loaded once per process, at its first use; queries and
documents get the prompts that fastrank's model has, not those that mteb keeps for models it knows. Works with mteb 2.26
and newer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank.dense.text_embedding import TextEmbedding
from fastrank.evaluation.search import SparseIndex
from fastrank.integrations._host import required
from fastrank.integrations._models import device_options, shared
from fastrank.late_interaction import LateInteractionTextEmbedding
from fastrank.maxsim import maxsim
from fastrank.models import registry
from fastrank.models.spec import SPARSE_EMBEDDING, SparseTask
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

with required("mteb"):
    from mteb import similarity_functions
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction
    from mteb.types import PromptType

__all__ = ["FastrankCrossEncoder", "FastrankEncoder", "FastrankLateInteraction", "FastrankSparse"]

Floats = NDArray[np.float32]


class _Model:
    """What all adapters have: the model, and what mteb is told about it."""

    _kind: Callable[..., Any]
    _similarity: Any = None

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        batch_size: int = 256,
        **options: Any,
    ) -> None:
        self.model_name = model_name
        self.batch_size = batch_size
        self.model = shared(type(self)._kind, model_name, **{**device_options(device), **options})  # noqa: SLF001
        # mteb writes results into a folder of this name, and knows names of the form organisation/model.
        name = model_name if model_name.count("/") == 1 else f"fastrank/{model_name.rstrip('/').rpartition('/')[2]}"
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": name,
                "revision": revision or "fastrank",
                "framework": ["ONNX"],
                "similarity_fn_name": self._similarity,
                "embed_dim": getattr(self.model, "embedding_size", None),
            }
        )


class FastrankEncoder(_Model):
    """Dense embeddings, compared by cosine: for all of mteb's tasks on texts.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        revision: written into mteb's results; the model is the one that fastrank's registry pins.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch, where mteb asks for none.
        **options: further arguments of `fastrank.TextEmbedding`, such as `specific_model_path`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    _kind = TextEmbedding
    _similarity = ScoringFunction.COSINE

    def encode(self, inputs: Any, *, prompt_type: Any = None, batch_size: int | None = None, **_: Any) -> Floats:
        """Vectors of texts, float32 (texts, dim): `query_embed` and `passage_embed` for what mteb calls so.

        Args:
            inputs: batches of mteb.
            prompt_type: "query", "document" or None, for texts that are neither: `embed`.
            batch_size: the largest batch.
        """
        embed = {PromptType.query: self.model.query_embed, PromptType.document: self.model.passage_embed}
        vectors = embed.get(prompt_type, self.model.embed)(_texts(inputs), batch_size=batch_size or self.batch_size)
        rows = list(vectors)
        return np.stack(rows) if rows else np.zeros((0, self.model.embedding_size), np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosine of each of the first and each of the second."""
        return similarity_functions.cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosine of each of the first and the one of the second at the same place."""
        return similarity_functions.pairwise_cos_sim(embeddings1, embeddings2)


class FastrankCrossEncoder(_Model):
    """A cross-encoder: for mteb's reranking tasks, and for retrieval by what another model found.

    Arguments and errors are those of `FastrankEncoder`, with `fastrank.TextCrossEncoder`.
    """

    _kind = TextCrossEncoder

    def predict(self, inputs1: Any, inputs2: Any, *, batch_size: int | None = None, **_: Any) -> Floats:
        """The score of each text of the first and the one of the second at the same place, float32 (texts,)."""
        pairs = zip(_texts(inputs1), _texts(inputs2), strict=True)
        scores = self.model.rerank_pairs(pairs, batch_size=batch_size or self.batch_size)
        return np.fromiter(scores, np.float32)


class _Search(_Model):
    """A model that searches a corpus by itself: exactly, in memory."""

    def index(self, corpus: Any, **_: Any) -> None:
        """Take the documents to search."""
        self._ids = [str(row["id"]) for row in corpus]
        self._documents = [_document(row) for row in corpus]
        self._prepared: Any = None

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """The best documents: query id -> document id -> score.

        Args:
            queries: rows with id and text.
            top_k: how many documents of each query.
            top_ranked: query id -> ids of the documents to rank; None: all.
            encode_kwargs: of mteb; "batch_size" counts.
        """
        size = (encode_kwargs or {}).get("batch_size") or self.batch_size
        if self._prepared is None:
            self._prepared = self._prepare(self._documents, size)
        places = {document: place for place, document in enumerate(self._ids)}
        texts = [_query(row) for row in queries]
        found = {}
        for row, scores in zip(queries, self._scores(texts, size), strict=True):
            among = None if top_ranked is None else [places[each] for each in top_ranked.get(str(row["id"]), ())]
            chosen = np.arange(len(scores)) if among is None else np.array(among, np.int64)
            best = chosen[np.argsort(-scores[chosen], kind="stable")[:top_k]].tolist()
            found[str(row["id"])] = {self._ids[place]: float(scores[place]) for place in best}
        return found

    def _prepare(self, documents: Sequence[str], batch_size: int) -> Any:
        raise NotImplementedError

    def _scores(self, queries: Sequence[str], batch_size: int) -> Iterator[Floats]:
        """The scores of all documents, for each query."""
        raise NotImplementedError


class FastrankLateInteraction(_Search):
    """A late interaction model, searched by exact MaxSim: for retrieval and reranking.

    The token vectors of the corpus are in memory, in float16. Arguments and errors are those of `FastrankEncoder`, with
    `fastrank.LateInteractionTextEmbedding`.
    """

    _kind = LateInteractionTextEmbedding
    _similarity = ScoringFunction.MAX_SIM

    def _prepare(self, documents: Sequence[str], batch_size: int) -> Any:
        rows = [vectors.astype(np.float16) for vectors in self.model.passage_embed(documents, batch_size=batch_size)]
        lengths = [len(vectors) for vectors in rows]
        dim = self.model.embedding_size
        return np.concatenate(rows) if rows else np.zeros((0, dim), np.float16), np.array(lengths, np.int64)

    def _scores(self, queries: Sequence[str], batch_size: int) -> Iterator[Floats]:
        for vectors in self.model.query_embed(queries, batch_size=batch_size):
            yield maxsim(vectors, *self._prepared)


class FastrankSparse(_Search):
    """BM25, or a model of the SPLADE family, compared by dot product: for retrieval and reranking.

    For BM25 average length and IDF are those of the corpus that mteb gives. Arguments and errors are those of
    `FastrankEncoder`, with `fastrank.SparseTextEmbedding`; BM25 takes `language`, `analyzer` and its others.
    """

    _kind = SparseTextEmbedding
    _similarity = ScoringFunction.DOT_PRODUCT

    def __init__(self, model_name: str = "Qdrant/bm25", revision: str | None = None, **options: Any) -> None:
        super().__init__(model_name, revision, **options)
        task = registry.find(model_name, SPARSE_EMBEDDING).task(SPARSE_EMBEDDING, SparseTask)
        self._words = task.kind == "bm25"
        if self._words:  # one of its own, for statistics of its own
            given = {name: value for name, value in options.items() if name not in ("device", "batch_size")}
            self.model = SparseTextEmbedding(model_name, **{"avg_len": "auto", "idf": True, **given})
        elif task.requires_idf:
            raise ValueError(
                f"{model_name} leaves the IDF to a vector store: only models without it can be compared here"
            )

    def _prepare(self, documents: Sequence[str], batch_size: int) -> Any:
        if self._words and documents:
            self.model.fit(documents)
        vectors = list(self.model.passage_embed(documents, batch_size=batch_size)) if documents else []
        return SparseIndex([each.indices for each in vectors], [each.values for each in vectors])

    def _scores(self, queries: Sequence[str], batch_size: int) -> Iterator[Floats]:
        for vector in self.model.query_embed(queries, batch_size=batch_size):
            yield self._prepared.scores(vector.indices, vector.values)


def _texts(batches: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The texts of mteb's batches."""
    for batch in batches:
        yield from batch["text"]


def _document(row: Mapping[str, Any]) -> str:
    """A document as mteb embeds it: title, space, text."""
    return f"{row.get('title') or ''} {row['text']}".strip()


def _query(row: Mapping[str, Any]) -> str:
    """A query as mteb embeds it: text, space, instruction; the turns of a conversation with semicolons between them."""
    text = row["text"]
    if not isinstance(text, str):
        turns = (turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text)
        text = "; ".join(turns)
    instruction = row.get("instruction")
    return text if instruction is None else f"{text} {instruction}"
