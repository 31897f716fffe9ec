"""Pydantic AI: an embedding model for its `Embedder`.

>>> from pydantic_ai import Embedder
>>> from fastrank.integrations.pydantic_ai import FastrankEmbeddingModel
>>> embedder = Embedder(FastrankEmbeddingModel("BAAI/bge-small-en-v1.5"))
>>> result = await embedder.embed_query("why is the sky blue")

A model is loaded once per process, at its first use. Queries and documents get its own prompts. It blocks no loop, and
stops when its task is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastrank import inputs as checks
from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import shared

with required("pydantic-ai"):
    from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult, EmbeddingSettings
    from pydantic_ai.usage import RequestUsage

__all__ = ["FastrankEmbeddingModel"]


class FastrankEmbeddingModel(EmbeddingModel):
    """Dense embeddings.

    A text that is too long is truncated, whatever Pydantic AI's `truncate` says: ask `count_tokens` and
    `max_input_tokens`. Its `dimensions` must be those of the model.

    Args:
        model_name: a model of `fastrank.TextEmbedding`.
        settings: Pydantic AI's, used where a call has none.
        batch_size: the largest batch.
        **options: further arguments of `fastrank.TextEmbedding`, such as `threads` and `precision`.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        *,
        settings: EmbeddingSettings | None = None,
        batch_size: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(settings=settings)
        self._name = model_name
        self._batch_size = batch_size
        self._options = options
        self._model()  # checks the arguments; nothing is loaded

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def system(self) -> str:
        """Who computes: "fastrank"."""
        return "fastrank"

    async def embed(
        self, inputs: str | Sequence[str], *, input_type: Any, settings: EmbeddingSettings | None = None
    ) -> EmbeddingResult:
        """Vectors of texts, lists of floats, with the prompts for queries or documents.

        Args:
            inputs: one text, or several.
            input_type: "query" or "document".
            settings: of this call.

        Raises:
            TypeError: a text is no string; the message says which.
            ValueError: `dimensions` is not the model's size.
        """
        texts, merged = self.prepare_embed(inputs, settings)
        texts = list(checks.documents(texts, "inputs"))
        model = await asyncio.to_thread(self._model)
        size = merged.get("dimensions")
        if size is not None and size != model.embedding_size:
            raise ValueError(f"dimensions={size}: {self._name} has vectors of {model.embedding_size}")
        embed = model.aquery_embed if input_type == "query" else model.apassage_embed
        vectors = [vector.tolist() async for vector in embed(texts, batch_size=self._batch_size)]
        tokens = await asyncio.to_thread(model.token_count, texts)
        return EmbeddingResult(
            embeddings=vectors,
            inputs=texts,
            input_type=input_type,
            model_name=self._name,
            provider_name=self.system,
            usage=RequestUsage(input_tokens=tokens),
        )

    async def max_input_tokens(self) -> int | None:
        """The most tokens a text may have."""
        model = await asyncio.to_thread(self._model)
        limit: int | None = (await asyncio.to_thread(model.info))["max_length"]
        return limit

    async def count_tokens(self, text: str) -> int:
        """The tokens the model sees of a text."""
        model = await asyncio.to_thread(self._model)
        return await asyncio.to_thread(model.token_count, checks.text(text, "text"))

    def _model(self) -> TextEmbedding:
        return shared(TextEmbedding, self._name, **self._options)
