"""Dense vectors for texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrank import heads, inputs, registry
from fastrank.closeable import Closeable
from fastrank.errors import ModelLoadError
from fastrank.options import Device, OnnxProvider, Options
from fastrank.pipeline import Head, LazyPipeline, prepare
from fastrank.registry import TEXT_EMBEDDING, DenseTask, ModelSource, PoolingType, Prefixes
from fastrank.schedule import Batch

Vector = NDArray[np.float32]

_POOLINGS = {
    PoolingType.CLS: "cls",
    PoolingType.MEAN: "mean",
    PoolingType.LAST_TOKEN: "last-token",
    PoolingType.DISABLED: "none",
}


class TextEmbedding(Closeable):
    """Dense vectors for texts, with FastEmbed's names, order and defaults.

    >>> from fastrank import TextEmbedding
    >>> model = TextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    >>> [vector.shape for vector in model.embed(["first text", "second text"])]
    [(384,), (384,)]

    An instance may be used by many threads at once; they share one loaded model. Texts longer than `max_length` tokens
    are cut.

    Args:
        model_name: a name or alias of the registry, in any case (see `list_supported_models`).
        cache_dir: where models are kept; None: FASTRANK_CACHE, else the user's cache folder.
        threads: processors to use; None: those this process may use (affinity and container quota).
        providers: onnxruntime execution providers, used as given.
        cuda: `Device.AUTO` takes CUDA if this onnxruntime has it, True or `Device.CUDA` insists, False or `Device.CPU`
            does without.
        device_ids: GPUs to use, one session each.
        lazy_load: find, fetch and load the model at the first use instead of now.
        specific_model_path: a folder with an ONNX graph or a safetensors checkpoint and tokenizer.json, used as it is.
        local_files_only: open no connection (FASTRANK_OFFLINE=1 and HF_HUB_OFFLINE=1 do the same).
        variant: which of the model's variants to use, such as "onnx", "safetensors" or "fp16"; None: the first that is
            on this machine, else the first that can be had.
        max_length: tokens a text may have, special ones included; None: the model's own limit.
        normalize: whether vectors have length 1; None: as the model's authors do it.
        prefixes: whether `query_embed` and `passage_embed` put the model's prefixes before texts.
        device_id: one GPU; the same as `device_ids=[device_id]`.
        enable_cpu_mem_arena: onnxruntime's memory arena on the CPU.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        ModelNotCachedError: offline, and the model is not on this machine.
        DownloadError: no source of the model could be used; the message lists them all.
        ModelLoadError: the files cannot be used.
        ProviderError: a provider that was asked for is not there; the message lists those that are.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
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
        normalize: bool | None = None,
        prefixes: bool = True,
        device_id: int | None = None,
        enable_cpu_mem_arena: bool = True,
    ) -> None:
        spec = registry.find(model_name, TEXT_EMBEDDING)
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        self._task = spec.task(TEXT_EMBEDDING, DenseTask)
        self._prefixes = prefixes
        head = _head(spec.name, self._task, self._task.normalize if normalize is None else normalize)
        self._engine: LazyPipeline[Vector] = prepare(
            spec,
            lambda _files, _tokenizer: head,
            Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena),
            cache_dir=cache_dir,
            given=specific_model_path,
            local_files_only=local_files_only,
            variant=variant,
            max_length=max_length,
            output=self._task.output,
        )
        if not lazy_load:
            self._engine.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Vector]:
        """Vectors of documents, exactly as they are: no prefix is added.

        Lazy: texts are read ahead by at most 256 (or `batch_size`, if that is more), so an endless iterator is fine.

        Args:
            documents: one text, or an iterable of texts.
            batch_size: the most texts that run together; usually fewer do, as a budget of tokens decides.
            parallel: batches that run at once, on threads that share the weights; None: what suits this machine,
                0: one a processor.

        Returns:
            An iterator of float32 arrays of shape (dim,), one a text, in order.

        Raises:
            TypeError: at the call, if `documents` is no string and no iterable; when it is reached, if an item is no
                string. What came before it is delivered first.
            ValueError: `batch_size` or `parallel` is out of range.
            OutputError: the model returned NaN or infinity; the message names the text.
        """
        return self._rows(inputs.texts(documents), batch_size, parallel)

    def query_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
    ) -> Iterator[Vector]:
        """Vectors of queries: `embed` with the model's query prefix, if it has one, before each.

        FastEmbed adds no prefixes; `prefixes=False` (here or in the constructor) gives its vectors.
        """
        return self._rows(self._prefixed(inputs.texts(query, "query"), "query", prefixes), batch_size, parallel)

    def passage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
    ) -> Iterator[Vector]:
        """Vectors of passages: `embed` with the model's passage prefix, if it has one, before each."""
        return self._rows(self._prefixed(inputs.texts(texts, "texts"), "passage", prefixes), batch_size, parallel)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024) -> int:
        """Tokens the model would see: of all texts together, after truncation, special tokens included."""
        found = inputs.texts(texts, "texts")
        return self._engine.get().token_count(found, inputs.positive(batch_size, "batch_size"))

    def _rows(self, texts: Iterator[str], batch_size: int, parallel: int | None) -> Iterator[Vector]:
        size, workers = inputs.positive(batch_size, "batch_size"), inputs.workers(parallel)
        return self._engine.get().run(texts, size, workers)

    def _prefixed(self, texts: Iterator[str], kind: str, wanted: bool | None) -> Iterator[str]:
        prefix: str = getattr(self._task.prefixes, kind)
        if not prefix or not (self._prefixes if wanted is None else wanted):
            return texts
        return map(prefix.__add__, texts)

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def embedding_size(self) -> int:
        """The length of a vector."""
        return self._task.dim

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of a model's vectors, without loading it.

        Raises:
            ModelNotFoundError: no such model.
        """
        return registry.find(model_name, TEXT_EMBEDDING).task(TEXT_EMBEDDING, DenseTask).dim

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models of the registry and custom ones, as fresh dicts with FastEmbed's keys."""
        return [registry.describe(spec, TEXT_EMBEDDING) for spec in registry.entries(TEXT_EMBEDDING)]

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        pooling: PoolingType,
        normalization: bool,
        sources: ModelSource,
        dim: int,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",  # noqa: A002 - FastEmbed's name
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
        output_name: str | None = None,
        *,
        max_length: int | None = None,
        query_prefix: str = "",
        passage_prefix: str = "",
    ) -> None:
        """Make a model known to this process, so that the constructor takes its name.

        Its files are fetched from the hub's main branch and nothing says what they should be: they are not checked.

        Args:
            model: its name, like "organisation/model".
            pooling: how token states become one vector; `PoolingType.DISABLED` if the graph pools by itself.
            normalization: whether vectors are brought to length 1.
            sources: `ModelSource(hf="organisation/repository")`.
            dim: the length of a vector.
            model_file: the graph's path in the repository, or "model.safetensors" of a BERT-like checkpoint.
            description: shown in lists.
            license: shown in lists.
            size_in_gb: accepted as FastEmbed has it; the size is taken from the files.
            additional_files: further files the graph needs, such as "onnx/model.onnx_data".
            output_name: the graph's output to use; None: the first.
            max_length: tokens a text may have; None: what the files say.
            query_prefix: put before texts by `query_embed`.
            passage_prefix: put before texts by `passage_embed`.

        Raises:
            ValueError: the name is taken, or a name or path is malformed.
        """
        del size_in_gb
        settings = DenseTask(
            dim=inputs.positive(dim, "dim"),
            pooling=_POOLINGS[PoolingType(pooling)],
            normalize=bool(normalization),
            prefixes=Prefixes(query_prefix, passage_prefix),
            output=output_name,
        )
        spec = registry.custom_spec(
            model,
            TEXT_EMBEDDING,
            settings,
            sources,
            model_file=model_file,
            additional_files=tuple(additional_files or ()),
            description=description,
            license=license,
            max_length=max_length,
        )
        registry.add(spec, TEXT_EMBEDDING)


def _head(name: str, task: DenseTask, normalize: bool) -> Head[Vector]:
    pool = heads.POOLINGS[task.pooling]

    def head(output: heads.Floats, batch: Batch) -> Sequence[Vector]:
        pooled = task.pooling == "none" or (task.pooling == "cls" and output.ndim == 2)  # noqa: PLR2004 - by the graph
        if output.ndim != (2 if pooled else 3):
            raise ModelLoadError(
                f"{name}: the model's output has shape {output.shape}, which pooling {task.pooling!r} cannot take"
            )
        rows = output if pooled else pool(output, batch)
        if rows.shape[1] != task.dim:
            raise ModelLoadError(f"{name}: the model returns vectors of {rows.shape[1]} numbers, not of {task.dim}")
        return list(heads.unit(rows) if normalize else rows)

    return head
