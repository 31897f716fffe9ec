"""Dense embeddings: one vector per text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastrank import inputs
from fastrank.dense import loading
from fastrank.dense.heads import Vector
from fastrank.dense.loading import DenseModel
from fastrank.dense.settings import extra_inputs
from fastrank.engine.loaded import Lazy, LoadedModel
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.engine.pipeline import Pipeline
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask, ModelSource, PoolingType, Prefixes
from fastrank.store.lookup import Lookup

_POOLINGS = {
    PoolingType.CLS: "cls",
    PoolingType.MEAN: "mean",
    PoolingType.LAST_TOKEN: "last-token",
    PoolingType.DISABLED: "none",
}


class TextEmbedding(PublicModel):
    """Dense vectors for texts, with FastEmbed's names, order and defaults.

    >>> from fastrank import TextEmbedding
    >>> model = TextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    >>> [vector.shape for vector in model.embed(["first text", "second text"])]
    [(384,), (384,)]

    An instance may be used by many threads at once; they share one loaded model. Texts longer than `max_length` tokens
    are cut.

    The settings of a model that has no entry in the registry come from its own folder, as sentence-transformers saves
    it: pooling and the modules around it, normalisation, lengths, prompts, `truncate_dim`, the tokenizer's class. Every
    field of its files is applied or harmless, or the model is refused (docs/folders.md lists them). With the name of an
    entry its settings hold whatever folder is given, so that one name stands for one way to make vectors.

    Args:
        model_name: a name or alias of the registry, in any case (see `list_supported_models`), one made known by
            `add_custom_model`, or any name for the model in `specific_model_path`.
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
        pooling: how token states become one vector; None: as the model's authors do it. Needed for a folder that does
            not say it, because it has no modules.json; such a folder's vectors are normalised only with `normalize`.
        normalize: whether vectors have length 1; None: as the model's authors do it.
        prefixes: whether the model's prefixes are put before texts: by `query_embed` and `passage_embed`, and by
            `embed` where the model's folder names a default prompt.
        task_id: what `embed` makes vectors for, as the model numbers its tasks (`list_supported_models` has them under
            "tasks"); only of jinaai/jina-embeddings-v3. None: passages.
        device_id: one GPU; the same as `device_ids=[device_id]`.
        enable_cpu_mem_arena: onnxruntime's memory arena on the CPU.
        precision: "fp32", "fp16" (for GPUs), "int8" or "int8-fast" (for CPUs), the latter three made of a checkpoint
            (README "Precision"); "auto": that of the model's files.
        verify: hash the model's files before they are loaded, not only when they are fetched.
        special_tokens_in_text: False: "[SEP]" in a text is read as these letters; True, as in the reference
            implementations: it is the special token, so that a text can forge the border of a segment.

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
        pooling: PoolingType | None = None,
        normalize: bool | None = None,
        prefixes: bool = True,
        task_id: int | None = None,
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
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        entry = spec.task(TEXT_EMBEDDING, DenseTask)
        task = entry._replace(
            pooling=entry.pooling if pooling is None else _POOLINGS[PoolingType(pooling)],
            normalize=entry.normalize if normalize is None else normalize,
        )
        self._dim, self._task_input = task.dim, task.task_input
        self._prefixes = prefixes
        self._task_id = self._checked_task(task_id)
        request = Request(
            spec,
            Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
            Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
            None if max_length is None else inputs.positive(max_length, "max_length"),
            special_tokens_in_text,
        )
        request = checked(request)
        self._settings = partial(loading.settings, request, task)
        self._model: Lazy[DenseModel] = Lazy(partial(loading.load, request, task))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        task_id: int | None = None,
    ) -> Iterator[Vector]:
        """Vectors of documents as they are: only a default prompt that the model's folder names is put before them.

        Lazy: texts are read ahead by at most 256 (4,096 for a GPU; or `batch_size`, if that is more), so an endless
        iterator is fine.

        Args:
            documents: one text, or an iterable of texts.
            batch_size: the most texts that run together; usually fewer do, as a budget of tokens decides.
            parallel: batches that run at once, on threads that share the weights; None: what suits this machine,
                0: one a processor.
            task_id: as in the constructor, for this call.

        Returns:
            An iterator of float32 arrays of shape (dim,), one a text, in order.

        Raises:
            TypeError: at the call, if `documents` is no string and no iterable; when it is reached, if an item is no
                string. What came before it is delivered first.
            ValueError: `batch_size` or `parallel` is out of range, or the model has no such task.
            OutputError: the model returned NaN or infinity; the message names the text.
        """
        asked = self._task_id if task_id is None else self._checked_task(task_id)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return self._documents(self._model.get(), asked).run(*arguments)

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
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return self._prefixed(self._model.get().queries, prefixes).run(*arguments)

    def passage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
    ) -> Iterator[Vector]:
        """Vectors of passages: `embed` with the model's passage prefix, if it has one, before each."""
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        return self._prefixed(self._model.get().passages, prefixes).run(*arguments)

    def aembed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[Vector]:
        """`embed` for asyncio: an async iterator that never blocks the loop but to read `documents`.

        The texts run on the threads that `embed` uses, together with those of other tasks. Cancelling the task, or
        closing the iterator, stops what has not begun.
        """
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: self._documents(model, self._task_id), *arguments)

    def aquery_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[Vector]:
        """`query_embed` for asyncio, as `aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: self._prefixed(model.queries, None), *arguments)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024) -> int:
        """Tokens the model would see: of all texts together, after truncation, special tokens included."""
        found, size = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        return self._model.get().documents.token_count(found, size)

    def _documents(self, model: LoadedModel[Pipeline[Vector], Any, Any], task_id: int | None) -> Pipeline[Vector]:
        """The pipeline for documents, for a task."""
        documents = self._prefixed(model.documents, None)
        if task_id is None:
            return documents
        return replace(documents, extra_inputs=extra_inputs(self._task_input, "embed", task_id))

    def _prefixed(self, pipeline: Pipeline[Vector], prefixes: bool | None) -> Pipeline[Vector]:
        """The pipeline with its prefix, or without."""
        return pipeline if (self._prefixes if prefixes is None else prefixes) else replace(pipeline, prefix="")

    def _checked_task(self, task_id: int | None) -> int | None:
        """`task_id`, if the model has such a task."""
        if task_id is None:
            return None
        if self._task_input is None:
            raise ValueError(f"{self.model_name} has no tasks to choose from with task_id")
        if task_id not in self._task_input.tasks.values():
            tasks = ", ".join(f"{number} ({name})" for name, number in self._task_input.tasks.items())
            raise ValueError(f"task_id must be one of {tasks}, not {task_id!r}")
        return int(task_id)

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def embedding_size(self) -> int:
        """The length of a vector.

        Of a custom model that was added without `dim` its files say it, and if they do not, a first run.
        """
        return self._dim or self._settings().dim or len(next(self.embed("")))

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of a model's vectors, without loading it.

        Raises:
            ModelNotFoundError: no such model.
            ValueError: a custom model that was added without `dim`.
        """
        spec = registry.find(model_name, TEXT_EMBEDDING)
        if dim := spec.task(TEXT_EMBEDDING, DenseTask).dim:
            return dim
        raise ValueError(f"{spec.name} was added without dim; a TextEmbedding of it has embedding_size")

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models of the registry and custom ones, as fresh dicts with FastEmbed's keys."""
        return [registry.describe(spec, TEXT_EMBEDDING) for spec in registry.entries(TEXT_EMBEDDING)]

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        pooling: PoolingType | None = None,
        normalization: bool | None = None,
        sources: ModelSource | None = None,
        dim: int | None = None,
        model_file: str | None = None,
        description: str = "",
        license: str = "",  # noqa: A002 - FastEmbed's name
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
        output_name: str | None = None,
        *,
        max_length: int | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
    ) -> None:
        """Make a model known to this process, so that the constructor takes its name.

        What is not given, the repository's own files say: `TextEmbedding.add_custom_model("organisation/model")` is
        enough for one that sentence-transformers has saved. Its files are fetched from the hub's main branch, of one
        commit, and checked against what the hub states of them. None of them is executed.

        Args:
            model: its name, like "organisation/model".
            pooling: how token states become one vector; `PoolingType.DISABLED` if the graph pools by itself. None: as
                the modules of the repository do it; loading fails if it has none.
            normalization: whether vectors are brought to length 1. None: if the repository's modules do it.
            sources: `ModelSource(hf="organisation/repository")`; None: the repository with the model's name.
            dim: the length of a vector, if it is to be checked.
            model_file: the graph's path in the repository, or "model.safetensors". None: the first usual ONNX graph it
                has ("onnx/model.onnx", "model.onnx", ...), else "model.safetensors".
            description: shown in lists.
            license: shown in lists.
            size_in_gb: accepted as FastEmbed has it; the size is taken from the files.
            additional_files: further files the graph needs; "<model_file>_data" and the like are found without.
            output_name: the graph's output to use; None: the first.
            max_length: tokens a text may have; None: what the files say.
            query_prefix: put before texts by `query_embed`. None for both: the repository's prompts.
            passage_prefix: put before texts by `passage_embed`.

        Raises:
            ValueError: the name is taken, or a name or path is malformed.
        """
        del size_in_gb
        own_prompts = query_prefix is None and passage_prefix is None
        settings = DenseTask(
            dim=None if dim is None else inputs.positive(dim, "dim"),
            pooling=None if pooling is None else _POOLINGS[PoolingType(pooling)],
            normalize=None if normalization is None else bool(normalization),
            prefixes=None if own_prompts else Prefixes(query_prefix or "", passage_prefix or ""),
            output=output_name,
        )
        spec = custom_spec(
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
