"""LlamaIndex: embeddings, and a node postprocessor that reranks.

>>> from fastrank.integrations.llama_index import FastrankEmbedding, FastrankRerank
>>> index = VectorStoreIndex(nodes, embed_model=FastrankEmbedding("BAAI/bge-small-en-v1.5"))
>>> engine = index.as_query_engine(similarity_top_k=20, node_postprocessors=[FastrankRerank(top_n=3)])

Both hold nothing but their configuration, which LlamaIndex can store; a model is loaded once per process, at its first
use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastrank import inputs
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import shared
from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.rerank.ranking import RankedDocument

with required("llama-index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

__all__ = ["FastrankEmbedding", "FastrankRerank"]

_RETRIEVAL_SCORE = "retrieval_score"
_dispatcher = get_dispatcher(__name__)


class FastrankEmbedding(BaseEmbedding):
    """Dense embeddings as lists of floats, with the model's prompts for queries and texts where it has them.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        model_kwargs: further arguments of `fastrank.TextEmbedding`, such as `{"threads": 2}`.
        **options: LlamaIndex's own, such as `embed_batch_size` (64 unless given) and `callback_manager`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        model_kwargs: dict[str, Any] | None = None,
        embed_batch_size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(
            model_name=model_name, model_kwargs=model_kwargs or {}, embed_batch_size=embed_batch_size, **options
        )
        self._model()  # checks the arguments; nothing is loaded

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "FastrankEmbedding"

    def _model(self) -> TextEmbedding:
        return shared(TextEmbedding, self.model_name, **self.model_kwargs)

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = next(self._model().query_embed(inputs.text(query, "query"))).tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        documents = inputs.documents(texts, "texts")
        return [vector.tolist() for vector in self._model().passage_embed(documents, batch_size=self.embed_batch_size)]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        text, model = inputs.text(query, "query"), await asyncio.to_thread(self._model)
        vectors: list[list[float]] = [vector.tolist() async for vector in model.aquery_embed(text)]
        return vectors[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        documents, model = inputs.documents(texts, "texts"), await asyncio.to_thread(self._model)
        return [vector.tolist() async for vector in model.apassage_embed(documents, batch_size=self.embed_batch_size)]


class FastrankRerank(BaseNodePostprocessor):
    """The best nodes by a cross-encoder, best first, with its scores.

    Scored is the node's text with the metadata that LlamaIndex embeds. LlamaIndex's rerank events are sent.

    Args:
        model: a cross-encoder of fastrank's registry.
        top_n: how many nodes to keep.
        batch_size: the largest batch of pairs.
        keep_retrieval_score: whether nodes are copied with the retrieval's score as `metadata["retrieval_score"]`.
        model_kwargs: further arguments of `fastrank.TextCrossEncoder`.
        **options: LlamaIndex's own, such as `callback_manager`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextCrossEncoder`, and if `top_n` is below 1.
    """

    model: str = Field(description="A cross-encoder of fastrank's registry.")
    top_n: int = Field(description="How many nodes to keep.", ge=1)
    batch_size: int = Field(description="The largest batch of pairs.", ge=1)
    keep_retrieval_score: bool = Field(description="Whether the retrieval's score is kept in the metadata.")
    model_kwargs: dict[str, Any] = Field(description="Further arguments of fastrank.TextCrossEncoder.")

    def __init__(
        self,
        model: str = "Xenova/ms-marco-MiniLM-L-6-v2",
        top_n: int = 2,
        batch_size: int = 64,
        keep_retrieval_score: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            model=model,
            top_n=top_n,
            batch_size=batch_size,
            keep_retrieval_score=keep_retrieval_score,
            model_kwargs=model_kwargs or {},
            **options,
        )
        self._model()  # checks the arguments; nothing is loaded

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "FastrankRerank"

    def _model(self) -> TextCrossEncoder:
        return shared(TextCrossEncoder, self.model, **self.model_kwargs)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, texts = _query(query_bundle), _texts(nodes)
        if not nodes:
            return []
        with self._events(nodes, query) as best:
            ranked = self._model().rank(query.query_str, texts, self.top_n, self.batch_size)
            best.extend(self._ranked(nodes, ranked))
        return best

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, texts = _query(query_bundle), _texts(nodes)
        if not nodes:
            return []
        model = await asyncio.to_thread(self._model)
        with self._events(nodes, query) as best:
            ranked = await model.arank(query.query_str, texts, self.top_n, self.batch_size)
            best.extend(self._ranked(nodes, ranked))
        return best

    @contextmanager
    def _events(self, nodes: list[NodeWithScore], query: QueryBundle) -> Iterator[list[NodeWithScore]]:
        """LlamaIndex's events around a block that fills the list of the best nodes."""
        best: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=self.model))
        about = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=about) as event:
            yield best
            event.on_end(payload={EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))

    def _ranked(self, nodes: list[NodeWithScore], ranking: list[RankedDocument]) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._node(nodes[each.index]), score=each.score) for each in ranking]

    def _node(self, retrieved: NodeWithScore) -> BaseNode:
        """The node, or a copy with the retrieval's score in its metadata, which is not part of the text to embed."""
        node = retrieved.node
        if not self.keep_retrieval_score:
            return node
        changes = {
            "metadata": {**node.metadata, _RETRIEVAL_SCORE: retrieved.score},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, _RETRIEVAL_SCORE],
        }
        copy: BaseNode = node.model_copy(update=changes)
        return copy


def _query(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise ValueError("FastrankRerank needs the query: postprocess_nodes(nodes, query_str=...)")
    return query


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
