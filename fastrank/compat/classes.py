"""FastEmbed's classes over fastrank: where the defaults of the two differ, these have FastEmbed's.

Texts are truncated where FastEmbed truncates them, half-precision files are used where FastEmbed uses them, no prefix
is put before queries and passages, and options that FastEmbed ignores are ignored (with a warning). So vectors equal
FastEmbed's, and collections that were made with it can be searched and added to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastrank
from fastrank import inputs
from fastrank.compat import descriptions
from fastrank.compat.facade import FastEmbedModel, read_json
from fastrank.compat.images import ImageEmbedding, LateInteractionMultimodalEmbedding
from fastrank.compat.sparse import Bm25, SparseTextEmbedding
from fastrank.dense.heads import Vector
from fastrank.engine.options import Device, OnnxProvider
from fastrank.models import registry
from fastrank.models.spec import (
    CROSS_ENCODER,
    LATE_INTERACTION,
    TEXT_EMBEDDING,
    DenseTask,
    ModelSource,
    ModelSpec,
    PoolingType,
)
from fastrank.postprocess import muvera as fastrank_muvera

__all__ = [
    "Bm25",
    "ImageEmbedding",
    "JinaEmbedding",
    "LateInteractionMultimodalEmbedding",
    "LateInteractionTextEmbedding",
    "Muvera",
    "SparseTextEmbedding",
    "TextCrossEncoder",
    "TextEmbedding",
]

_STATIC_LIMIT = 512  # tokens of a text that FastEmbed lets a static model see


class TextEmbedding(FastEmbedModel, fastrank.TextEmbedding):
    """`fastrank.TextEmbedding` with FastEmbed's limits, files and lack of prefixes."""

    task = TEXT_EMBEDDING
    fixed: ClassVar[Mapping[str, Any]] = {"prefixes": False}

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: Sequence[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model_name, cache_dir, threads, providers, cuda, device_ids, lazy_load, **options)

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        task_id: int | None = None,
        **options: Any,
    ) -> Iterator[Vector]:
        """Vectors of documents. Models without tasks ignore `task_id`. See `fastrank.TextEmbedding.embed`."""
        if task_id is not None and not _has_tasks(self._inside.spec):
            options, task_id = {**options, "task_id": task_id}, None
        self._run(options)
        return super().embed(documents, batch_size, parallel, task_id)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[Vector]:
        """Vectors of queries, without a prefix."""
        self._run(options)
        return super().query_embed(query, batch_size, parallel)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[Vector]:
        """Vectors of passages, without a prefix."""
        self._run(options)
        return super().passage_embed(texts, batch_size, parallel)

    def token_count(  # type: ignore[override]
        self, texts: str | Iterable[str], batch_size: int = 1024, **options: Any
    ) -> int:
        """Tokens of all texts after truncation; of a static model unknown ones too, and no special ones."""
        self._ignore(options)
        folder = self._inside.folder()
        if read_json(folder / "config.json").get("model_type") == "model2vec":
            return _static_tokens(folder, inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size"))
        return super().token_count(texts, batch_size)

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        pooling: PoolingType | None = None,
        normalization: bool | None = None,
        sources: ModelSource | None = None,
        dim: int | None = None,
        model_file: str | None = "onnx/model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - FastEmbed's name
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
        output_name: str | None = None,
        **options: Any,
    ) -> None:
        """Make a model known to this process; only names that FastEmbed ships are taken.

        See `fastrank.TextEmbedding.add_custom_model`.

        Raises:
            ValueError: FastEmbed ships this name, or it has been added before.
        """
        with registry.replacing_shipped(descriptions.SHIPPED[cls.task]):
            super().add_custom_model(
                model,
                pooling,
                normalization,
                sources,
                dim,
                model_file,
                description,
                license,
                size_in_gb,
                additional_files,
                output_name,
                **options,
            )

    def _known_options(self, spec: ModelSpec) -> frozenset[str]:
        return super()._known_options(spec) | ({"task_id"} if _has_tasks(spec) else set())


class JinaEmbedding(TextEmbedding):
    """FastEmbed's old name for a TextEmbedding of Jina's."""

    def __init__(
        self,
        model_name: str = "jinaai/jina-embeddings-v2-base-en",
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model_name, cache_dir, threads, **options)


class LateInteractionTextEmbedding(FastEmbedModel, fastrank.LateInteractionTextEmbedding):
    """`fastrank.LateInteractionTextEmbedding` with FastEmbed's limits.

    qdrant-client tells by a name alone which vectors are meant. So the token vectors of a model that is a dense one too
    go by its name with "-tokens" behind: "sentence-transformers/all-MiniLM-L6-v2-tokens".
    """

    task = LATE_INTERACTION

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[Vector]:
        """Token vectors of documents; see `fastrank.LateInteractionTextEmbedding.embed`."""
        self._run(options)
        return super().embed(documents, batch_size, parallel)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[Vector]:
        """Token vectors of queries; see `fastrank.LateInteractionTextEmbedding.query_embed`."""
        self._run(options)
        return super().query_embed(query, batch_size, parallel)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **options: Any
    ) -> Iterator[Vector]:
        """Token vectors of passages: the same as `embed`."""
        self._run(options)
        return super().passage_embed(texts, batch_size, parallel)

    def token_count(  # type: ignore[override]
        self,
        texts: str | Iterable[str],
        batch_size: int = 1024,
        is_doc: bool = True,
        include_extension: bool = False,
        **options: Any,
    ) -> int:
        """Tokens of all texts; see `fastrank.LateInteractionTextEmbedding.token_count`."""
        self._ignore(options)
        return super().token_count(texts, batch_size, is_doc, include_extension)

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of a model's token vectors."""
        return super().get_embedding_size(descriptions.find(model_name, cls.task).name)


class TextCrossEncoder(FastEmbedModel, fastrank.TextCrossEncoder):
    """`fastrank.TextCrossEncoder` with FastEmbed's limits."""

    task = CROSS_ENCODER

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 64,
        parallel: int | None = None,
        **options: Any,
    ) -> Iterator[float]:
        """The score of each document; see `fastrank.TextCrossEncoder.rerank`."""
        self._run(options)
        return super().rerank(query, documents, batch_size, parallel)

    def rerank_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int = 64,
        parallel: int | None = None,
        **options: Any,
    ) -> Iterator[float]:
        """The score of each pair; see `fastrank.TextCrossEncoder.rerank_pairs`."""
        self._run(options)
        return super().rerank_pairs(pairs, batch_size, parallel)

    def token_count(  # type: ignore[override]
        self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024, **options: Any
    ) -> int:
        """Tokens of all pairs; see `fastrank.TextCrossEncoder.token_count`."""
        self._ignore(options)
        return super().token_count(pairs, batch_size)

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: ModelSource | None = None,
        model_file: str | None = "onnx/model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - FastEmbed's name
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        """Make a cross-encoder known to this process; only names that FastEmbed ships are taken.

        See `fastrank.TextCrossEncoder.add_custom_model`.

        Raises:
            ValueError: FastEmbed ships this name, or it has been added before.
        """
        with registry.replacing_shipped(descriptions.SHIPPED[cls.task]):
            super().add_custom_model(
                model, sources, model_file, description, license, size_in_gb, additional_files, **options
            )


class Muvera(fastrank_muvera.Muvera):
    """`fastrank.postprocess.Muvera` with FastEmbed's float64."""

    def process(
        self, vectors: ArrayLike, fill_empty_clusters: bool = True, normalize_by_count: bool = True
    ) -> NDArray[Any]:
        """The encoding of token vectors, float64 (embedding_size,)."""
        return super().process(vectors, fill_empty_clusters, normalize_by_count).astype(np.float64)


def _has_tasks(spec: ModelSpec) -> bool:
    return spec.task(TEXT_EMBEDDING, DenseTask).task_input is not None


def _static_tokens(folder: Path, texts: Iterator[str], batch_size: int) -> int:
    """Tokens of texts as FastEmbed counts them for a static model: at most 512 of a text."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_STATIC_LIMIT)
    tokenizer.no_padding()
    batches = iter(lambda: list(islice(texts, batch_size)), [])
    return sum(
        len(encoding.ids)
        for batch in batches
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    )
