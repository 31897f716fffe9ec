"""Dense, sparse and token embeddings of a text in one run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastrank import inputs
from fastrank.engine.loaded import Lazy
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.engine.pipeline import Pipeline
from fastrank.hybrid import loading
from fastrank.hybrid.embedding import WEIGHTS, HybridEmbedding, hybrid_scores
from fastrank.hybrid.loading import OWN_TASKS, HybridModel
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask, SparseTask
from fastrank.store.lookup import Lookup


class HybridTextEmbedding(PublicModel):
    """Embeddings for hybrid search: a dense vector, a sparse vector and token vectors of a text, from one run.

    >>> from fastrank import HybridTextEmbedding
    >>> model = HybridTextEmbedding("BAAI/bge-m3")
    >>> made = next(model.embed("What is BGE M3?"))
    >>> made.dense.shape, made.sparse.indices.shape, made.tokens.shape
    ((1024,), (6,), (8, 1024))

    For models with more than one head: BGE-M3 (all three), gte-multilingual-base (dense and sparse), and their tunes.
    The same names work with `TextEmbedding`, `SparseTextEmbedding` and `LateInteractionTextEmbedding`. All that are in
    memory with the same settings share a session.

    A folder of your own is such a model if it has `sparse_linear.pt` and `colbert_linear.pt`, which are read without
    running the pickle in them, or a checkpoint with mGTE's classifier of tokens.

    See `TextEmbedding` for the arguments and errors that all models share.

    Args:
        max_length: maximum number of tokens per text, special tokens included. None: the model's limit.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-m3",
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        *,
        specific_model_path: str | Path | None = None,
        local_files_only: bool = False,
        variant: str | None = None,
        max_length: int | None = None,
        device_id: int | None = None,
        enable_cpu_mem_arena: bool = True,
        precision: str = "auto",
        verify: bool = False,
        special_tokens_in_text: bool = True,
    ) -> None:
        if specific_model_path is None:
            spec = registry.find(model_name, TEXT_EMBEDDING)
        else:
            spec = registry.find_or_own(model_name, TEXT_EMBEDDING, DenseTask())
        if not spec.variants or any(variant.open for variant in spec.variants):
            spec = spec._replace(tasks={**OWN_TASKS, **spec.tasks})
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        request = Request(
            spec,
            Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
            Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
            None if max_length is None else inputs.positive(max_length, "max_length"),
            special_tokens_in_text,
        )
        self._model: Lazy[HybridModel] = Lazy(partial(loading.load, checked(request)))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        dense: bool | None = None,
        sparse: bool | None = None,
        tokens: bool | None = None,
    ) -> Iterator[HybridEmbedding]:
        """Embeddings of documents, all of one run per batch.

        Lazy, as `TextEmbedding.embed`.

        Args:
            documents: one text, or an iterable of texts.
            batch_size: maximum number of texts per batch.
            parallel: as in `TextEmbedding.embed`.
            dense: whether to make dense vectors. None, for each of the three: if the model has them and none is asked
                for by True.
            sparse: the same for sparse vectors.
            tokens: the same for token vectors, which are large: 4 KB a token for BGE-M3.

        Returns:
            An iterator of `HybridEmbedding`, one per text, in order.

        Raises:
            TypeError: as `TextEmbedding.embed`.
            ValueError: as `TextEmbedding.embed`; or the model lacks what is asked for, or nothing is.
            OutputError: the model returned NaN or infinity; the message names the text.
        """
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        model = self._model.get()
        return self._wanted(model.documents, model, dense, sparse, tokens).run(*arguments)

    def query_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        dense: bool | None = None,
        sparse: bool | None = None,
        tokens: bool | None = None,
    ) -> Iterator[HybridEmbedding]:
        """Embeddings of queries: `embed` with the model's query prefix, if it has one."""
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        model = self._model.get()
        return self._wanted(model.queries, model, dense, sparse, tokens).run(*arguments)

    def passage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        dense: bool | None = None,
        sparse: bool | None = None,
        tokens: bool | None = None,
    ) -> Iterator[HybridEmbedding]:
        """Embeddings of passages: `embed` with the model's passage prefix, if it has one."""
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        model = self._model.get()
        return self._wanted(model.passages, model, dense, sparse, tokens).run(*arguments)

    def aembed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        dense: bool | None = None,
        sparse: bool | None = None,
        tokens: bool | None = None,
    ) -> AsyncIterator[HybridEmbedding]:
        """`embed` for asyncio; see `TextEmbedding.aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asynchronous.run(
            self._model, lambda model: self._wanted(model.documents, model, dense, sparse, tokens), *arguments
        )

    def aquery_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        dense: bool | None = None,
        sparse: bool | None = None,
        tokens: bool | None = None,
    ) -> AsyncIterator[HybridEmbedding]:
        """`query_embed` for asyncio; see `TextEmbedding.aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asynchronous.run(
            self._model, lambda model: self._wanted(model.queries, model, dense, sparse, tokens), *arguments
        )

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        weights: Sequence[float] = WEIGHTS,
    ) -> Iterator[float]:
        """The score of each document, in the order of the documents: `hybrid_scores` of the embeddings.

        Args:
            query: one text.
            documents: texts.
            batch_size: as in `embed`.
            parallel: as in `embed`.
            weights: of dense, sparse and token similarity. Only parts with a weight are made.

        Raises:
            TypeError: as `embed`, or `query` is no string.
            ValueError: as `embed` and `hybrid_scores`.
        """
        query, texts = inputs.text(query, "query"), inputs.documents(documents)
        available = self._model.get().settings.available()
        parts: Any = {
            name: bool(weight)
            for name, weight in zip(HybridEmbedding._fields, weights, strict=False)
            if name in available
        }
        of_query = next(self.query_embed(query, **parts))
        hybrid_scores(of_query, [], weights)  # checks the weights at the call
        made = self.passage_embed(texts, batch_size, parallel, **parts)
        return (float(hybrid_scores(of_query, [each], weights)[0]) for each in made)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024) -> int:
        """Total number of tokens the model would see: after truncation, special tokens included."""
        arguments = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        return sum(self._model.get().documents.token_counts(*arguments))

    def _wanted(
        self,
        pipeline: Pipeline[Any],
        model: HybridModel,
        dense: bool | None,
        sparse: bool | None,
        tokens: bool | None,
    ) -> Pipeline[HybridEmbedding]:
        """The pipeline for what is asked for."""
        asked = {"dense": dense, "sparse": sparse, "tokens": tokens}
        available = model.settings.available()
        if lacking := [name for name, wanted in asked.items() if wanted and name not in available]:
            raise ValueError(f"{self.model_name} makes no {lacking[0]} embeddings; it makes {' and '.join(available)}")
        named = [name for name, wanted in asked.items() if wanted]
        wanted = named or [name for name in available if asked[name] is None]
        if not wanted:
            raise ValueError("nothing is asked for: one of dense, sparse and tokens must not be False")
        return loading.pipeline(pipeline, model.settings, wanted)

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def embeddings(self) -> list[str]:
        """What the model makes: of "dense", "sparse" and "tokens"."""
        return self._model.get().settings.available()

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Registry entries of models with several heads, as dicts with FastEmbed's keys."""
        return [
            registry.describe(spec, TEXT_EMBEDDING) for spec in registry.entries(TEXT_EMBEDDING) if _is_hybrid(spec)
        ]


def _is_hybrid(spec: Any) -> bool:
    return any(isinstance(task, SparseTask) and task.kind == "token-weights" for task in spec.tasks.values())
