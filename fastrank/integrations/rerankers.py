"""AnswerDotAI's `rerankers`: fastrank's models as model types of its `Reranker`.

>>> from rerankers import Reranker
>>> import fastrank.integrations.rerankers
>>> ranker = Reranker("BAAI/bge-reranker-base", model_type="FastrankRanker", verbose=0)
>>> ranker.rank("why is the sky blue", ["Rayleigh scattering.", "It is 3 km long."]).top_k(1)

Importing this module registers "FastrankRanker" (cross-encoders) and "FastrankColBERTRanker" (late interaction). Each
model is loaded once per process, at its first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastrank import inputs
from fastrank.integrations._host import required
from fastrank.integrations._models import device_options, shared
from fastrank.late_interaction import LateInteractionTextEmbedding
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.rerank.ranking import RankedDocument

with required("rerankers"):
    from rerankers.documents import Document
    from rerankers.models import AVAILABLE_RANKERS
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
    from rerankers.utils import prep_docs

__all__ = ["FastrankColBERTRanker", "FastrankRanker"]


class FastrankRanker(BaseRanker):
    """A cross-encoder.

    Args:
        model_name_or_path: a cross-encoder of fastrank's registry.
        verbose: accepted for compatibility; nothing is printed.
        device: None, "cpu", "cuda" or "cuda:1".
        batch_size: the largest batch of pairs.
        **options: further arguments of `fastrank.TextCrossEncoder`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`.
    """

    ranking_type = "pointwise"
    _kind: Callable[..., TextCrossEncoder | LateInteractionTextEmbedding] = TextCrossEncoder

    def __init__(
        self,
        model_name_or_path: str,
        verbose: int = 1,
        device: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self.verbose = verbose
        self.batch_size = batch_size
        self.model = shared(self._kind, model_name_or_path, **{**device_options(device), **options})

    def score(self, query: str, doc: str) -> float:
        """The score of one document."""
        return next(self.model.rerank(query, [doc]))

    def rank(
        self,
        query: str,
        docs: str | list[str] | Document | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
        batch_size: int | None = None,
    ) -> RankedResults:
        """The documents, best first; ties keep their order.

        Raises:
            TypeError: the query or a document is not a string; the message says which.
        """
        documents = _documents(docs, doc_ids, metadata)
        texts = [document.text for document in documents]
        ranking = self.model.rank(query, texts, batch_size=batch_size or self.batch_size) if texts else []
        return _results(query, documents, ranking)

    async def rank_async(
        self,
        query: str,
        docs: str | list[str] | Document | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
        batch_size: int | None = None,
    ) -> RankedResults:
        """`rank` for asyncio: it blocks no loop, and stops when its task is cancelled."""
        documents = _documents(docs, doc_ids, metadata)
        texts = [document.text for document in documents]
        ranking = await self.model.arank(query, texts, batch_size=batch_size or self.batch_size) if texts else []
        return _results(query, documents, ranking)


class FastrankColBERTRanker(FastrankRanker):
    """A late interaction model, compared by MaxSim; otherwise as `FastrankRanker`."""

    _kind = LateInteractionTextEmbedding


def _results(query: str, documents: list[Document], ranking: list[RankedDocument]) -> RankedResults:
    results = [
        Result(document=documents[ranked.index], score=ranked.score, rank=rank)
        for rank, ranked in enumerate(ranking, start=1)
    ]
    return RankedResults(results=results, query=query, has_scores=True)


def _documents(docs: Any, doc_ids: Any, metadata: Any) -> list[Document]:
    """As rerankers' own `prep_docs`, which fails on an empty list and takes any iterable of labels for texts."""
    if not isinstance(docs, (str, Document)):
        docs = list(docs) if _all_documents(docs) else list(inputs.documents(docs, "docs"))
    documents: list[Document] = prep_docs(docs, doc_ids, metadata) if docs != [] else []
    return documents


def _all_documents(docs: Any) -> bool:
    return isinstance(docs, (list, tuple)) and all(isinstance(document, Document) for document in docs)


AVAILABLE_RANKERS["FastrankRanker"] = FastrankRanker
AVAILABLE_RANKERS["FastrankColBERTRanker"] = FastrankColBERTRanker
