"""Dense embeddings: one vector per text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from fastrank import inputs
from fastrank.dense import heads, loading
from fastrank.dense.heads import Vector
from fastrank.dense.loading import DenseModel
from fastrank.dense.settings import extra_inputs
from fastrank.engine import calls, vectors
from fastrank.engine.calls import OutputDtype, OverflowMode, VectorOptions
from fastrank.engine.loaded import Lazy, LoadedModel
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.engine.overflow import ChunkVectors
from fastrank.engine.pipeline import Pipeline
from fastrank.engine.vectors import Dimensions, VectorCall
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import TEXT_EMBEDDING, DenseTask, ModelSource, PoolingType, Prefixes, instructed
from fastrank.store.lookup import Lookup

_POOLINGS = {
    PoolingType.CLS: "cls",
    PoolingType.MEAN: "mean",
    PoolingType.LAST_TOKEN: "last-token",
    PoolingType.DISABLED: "none",
}


class TextEmbedding(PublicModel):
    """Dense embeddings: one vector per text. Names, order and defaults are FastEmbed's.

    Examples:
        >>> from fastrank import TextEmbedding
        >>> model = TextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
        >>> for vector in model.embed(["first text", "second text"]):
        ...     print(vector.shape, vector.dtype)
        (384,) float32
        (384,) float32

    Threads may share an instance; it holds one loaded model. Texts longer than `max_length` tokens are truncated.

    The settings of a model that has no entry in the registry come from its own folder, as sentence-transformers saves
    it: pooling and other modules, normalization, lengths, prompts, `truncate_dim`, the tokenizer's class. Every field
    of its files is applied or has no effect, or the model is refused (docs/folders.md lists them). A model in the
    registry always has the registry's settings, also with `specific_model_path`, so that one name means one encoding.

    Args:
        model_name: a name or alias in the registry, case-insensitive (see `list_supported_models`), a name registered
            with `add_custom_model`, or any name for the model in `specific_model_path`.
        cache_dir: folder for downloaded models. None: FASTRANK_CACHE, else the user's cache folder.
        threads: CPU threads. None: every core this process may use (CPU affinity, container quota).
        providers: onnxruntime execution providers, used as given.
        cuda: `Device.AUTO` uses CUDA where this onnxruntime has it; True or `Device.CUDA` requires it; False or
            `Device.CPU` does not use it.
        device_ids: GPUs to use, with one session on each.
        lazy_load: download and load the model on first use instead of in the constructor.
        specific_model_path: a folder with an ONNX graph or a safetensors checkpoint, and tokenizer.json. Nothing is
            downloaded.
        local_files_only: never open a connection (FASTRANK_OFFLINE=1 and HF_HUB_OFFLINE=1 do the same).
        variant: which of the model's files to use, such as "onnx", "safetensors" or "fp16". None: the first that is
            cached, else the first that can be downloaded.
        max_length: maximum number of tokens per text, special tokens included. None: the model's limit.
        pooling: how token embeddings become one vector. None: as the model defines it. Required for a folder without
            modules.json; vectors of such a folder are only normalized with `normalize=True`.
        normalize: whether vectors are L2-normalized. None: as the model defines it.
        prefixes: whether the model's prefixes are put before texts: by `query_embed` and `passage_embed`, and by
            `embed` if the model's folder defines a default prompt.
        task_id: the task that `embed` encodes for, by the model's own numbering (`list_supported_models` has it under
            "tasks"); only for jinaai/jina-embeddings-v3. None: passages.
        device_id: one GPU; the same as `device_ids=[device_id]`.
        enable_cpu_mem_arena: whether onnxruntime uses its memory arena on the CPU.
        precision: "fp32", "fp16" (for GPUs), "int8", "int8-fast" or, for decoders, "int4" (for CPUs); "fp16" and "int4"
            are built from a safetensors checkpoint (docs/precision.md). "auto": the precision of the model's files.
        verify: check the SHA-256 of the model's files at every load, not only after a download.
        special_tokens_in_text: whether "[SEP]" in a text is read as the special token, as the reference implementations
            do; such a text can fake the end of a segment. False: it is read as plain characters.
        truncate_dim: keep so many numbers of a vector, from the first on (Matryoshka), and normalize it again if the
            model's vectors are normalized; a warning if the model is not known to be trained for it. None: all, or what
            the model's folder says (sentence-transformers' `truncate_dim`, which normalizes nothing again).
        output_dtype: "float32", "float16", "int8", "uint8", "binary" or "ubinary", as sentence-transformers'
            `quantize_embeddings` has them.
        ranges: for "int8" and "uint8": (2, dim), the least and the greatest value of each dimension, as `calibrate`
            returns them; or "unit" for normalized vectors: `round(127 * x)`.
        overflow: what is done with texts of more than `max_length` tokens. "truncate": their beginning is read;
            "error": TextTooLongError; "chunk": all of it is read, in chunks, and the vector is the mean of theirs.
        chunk_size: the most tokens of a chunk, prefix and special tokens not counted. None: as many as the model takes.
        chunk_overlap: the most tokens that a chunk shares with the one before. None: 0.

    The last six may be said for a single call too. Further arguments that all calls take:

    * `prompt`: put before each text, in place of the model's own prefix.
    * `on_truncated`: a function that is called with the position of each text that was cut.
    * `show_progress`: draw a progress bar (tqdm) while results are read.

    Raises:
        ModelNotFoundError: there is no such model; the message suggests similar names.
        ModelNotCachedError: downloads are off and the model is not cached.
        DownloadError: every source of the model failed; the message lists them.
        ModelLoadError: the model's files cannot be used.
        ProviderError: a requested execution provider is not available; the message lists those that are.
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.
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
        truncate_dim: int | None = None,
        output_dtype: OutputDtype = "float32",
        ranges: Any = None,
        overflow: OverflowMode = "truncate",
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
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
            modules=entry.modules and pooling is None,
        )
        shortened = None if truncate_dim is None else inputs.positive(truncate_dim, "truncate_dim")
        self._dim, self._task_input = vectors.size(task.dim, shortened), task.task_input
        self._form = vectors.form({"output_dtype": output_dtype, "ranges": ranges}, vectors.PLAIN, self._dim)
        self._overflow = calls.overflow(
            {"overflow": overflow, "chunk_size": chunk_size, "chunk_overlap": chunk_overlap}, join=heads.mean
        )
        self._dimensions = Dimensions(spec.name, task.matryoshka)
        self._dimensions.check(shortened, task.dim)
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
        self._settings = partial(loading.settings, request, task, shortened)
        self._model: Lazy[DenseModel] = Lazy(partial(loading.load, request, task, shortened))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        task_id: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[Vector]:
        """Vectors of documents, without a prefix, unless the model's folder defines a default prompt.

        Lazy: at most 256 texts, or 64 a thread, are read ahead (4,096 on a GPU; `batch_size` if larger), so endless
        iterators work.

        Args:
            documents: one text, or an iterable of texts.
            batch_size: maximum number of texts per batch. Batches are usually smaller: a token budget limits them.
            parallel: number of batches that run at once, on threads that share the weights. None: chosen for this
                machine; 0: one per CPU core.
            task_id: as in the constructor, for this call.
            options: `prompt`, `truncate_dim`, `output_dtype`, `ranges`, `overflow`, `chunk_size`, `chunk_overlap`,
                `on_truncated`, `show_progress`: as in the constructor, for this call.

        Returns:
            An iterator of arrays of shape (dim,), one per text, in order; float32, unless `output_dtype` is another.

        Raises:
            TypeError: at the call, if `documents` is neither a string nor an iterable, or an option is unknown; while
                iterating, if an item is not a string. Results for earlier items are delivered first.
            ValueError: an argument is out of range, or the model has no such task.
            OutputError: the model returned NaN or infinity; the message names the text.
            TextTooLongError: with `overflow="error"`, while iterating, as for items that are no strings.
        """
        task = self._task_id if task_id is None else self._checked_task(task_id)
        asked = self._asked("embed", options, documents)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: self._documents(model, task), *arguments)

    def query_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
        instruction: str | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[Vector]:
        """Vectors of queries: `embed` with the model's query prefix, if it has one.

        FastEmbed adds no prefixes; `prefixes=False` (here or in the constructor) returns the same vectors as FastEmbed.

        Args:
            query: one text, or an iterable of texts.
            batch_size: as in `embed`.
            parallel: as in `embed`.
            prefixes: as in the constructor, for this call.
            instruction: what the search is for, in place of the sentence in the model's query prefix, as
                Qwen3-Embedding has one after "Instruct: ". None: the model's own.
            options: as in `embed`.

        Raises:
            TypeError: as `embed`.
            ValueError: as `embed`; or the model's query prefix has no instruction, or `prefixes` is false.
        """
        asked = self._asked("query_embed", options, query)
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: self._queries(model, prefixes, instruction), *arguments)

    def passage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[Vector]:
        """Vectors of passages: `embed` with the model's passage prefix, if it has one."""
        asked = self._asked("passage_embed", options, texts)
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: self._prefixed(model.passages, prefixes), *arguments)

    def aembed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        task_id: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[Vector]:
        """`embed` for asyncio: an async iterator that blocks the event loop only while it reads `documents`.

        Texts run on the same threads as in `embed`, batched with those of other tasks. Cancelling the task, or closing
        the iterator, stops work that has not started.
        """
        task = self._task_id if task_id is None else self._checked_task(task_id)
        asked = self._asked("aembed", options, documents)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.arun(lambda model: self._documents(model, task), *arguments)

    def aquery_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
        instruction: str | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[Vector]:
        """`query_embed` for asyncio; see `aembed`."""
        asked = self._asked("aquery_embed", options, query)
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asked.arun(lambda model: self._queries(model, prefixes, instruction), *arguments)

    def apassage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        prefixes: bool | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[Vector]:
        """`passage_embed` for asyncio, as `aembed`."""
        asked = self._asked("apassage_embed", options, texts)
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        return asked.arun(lambda model: self._prefixed(model.passages, prefixes), *arguments)

    # -- parts of long texts ----------------------------------------------------------------------------------------

    def embed_chunks(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        late_chunking: bool = False,
        prefixes: bool | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[ChunkVectors]:
        """Vectors of the chunks of documents, with the places of these: all of a long text, in parts.

        A text with at most `chunk_size` tokens is one chunk. Others are cut at borders of paragraphs, sentences or
        words where these fit. A vector is that of `passage_embed(text[start:stop])`. With `late_chunking` the model
        reads the whole text, as far as it takes it, and the states of each chunk's tokens are averaged after that, so
        that a chunk's vector knows what stands around it (Günther et al. 2024, arXiv:2409.04701): for models with a
        long context and mean pooling.

        Args:
            documents: as `embed`.
            batch_size: as `embed`; of chunks.
            parallel: as `embed`.
            late_chunking: pool chunks after the model has read the whole text.
            prefixes: as `passage_embed`.
            options: as `embed`. `chunk_size` is 256 tokens with `late_chunking`, if nothing else is said.

        Returns:
            An iterator of `ChunkVectors`, one per text, in order: vectors (chunks, dim), and spans in characters.

        Raises:
            ValueError: as `embed`, or `late_chunking` with a model that has another pooling than the mean.
        """
        asked = self._asked_chunks("embed_chunks", options, documents, late_chunking=late_chunking)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.run(self._of_chunks(prefixes, late_chunking=late_chunking), *arguments)

    def aembed_chunks(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        *,
        late_chunking: bool = False,
        prefixes: bool | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[ChunkVectors]:
        """`embed_chunks` for asyncio, as `aembed`."""
        asked = self._asked_chunks("aembed_chunks", options, documents, late_chunking=late_chunking)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.arun(self._of_chunks(prefixes, late_chunking=late_chunking), *arguments)

    def calibrate(self, texts: Iterable[str], truncate_dim: int | None = None) -> Vector:
        """The ranges of a sample's vectors, for `output_dtype="int8"` and "uint8".

        A thousand texts like those to come are a good sample, as passages. Keep the ranges: only vectors that were made
        with the same ones can be compared.

        Args:
            texts: at least two.
            truncate_dim: of the vectors to come.

        Returns:
            float32 (2, dim): the least and the greatest value of each dimension.
        """
        from fastrank.postprocess import quantization

        return quantization.calibrate(
            self.passage_embed(
                inputs.documents(texts, "texts"), truncate_dim=truncate_dim, output_dtype="float32", ranges=None
            )
        )

    @overload
    def token_count(
        self, texts: str | Iterable[str], batch_size: int = ..., *, truncate: bool = ..., each: Literal[False] = ...
    ) -> int: ...

    @overload
    def token_count(
        self, texts: str | Iterable[str], batch_size: int = ..., *, truncate: bool = ..., each: Literal[True]
    ) -> list[int]: ...

    def token_count(
        self, texts: str | Iterable[str], batch_size: int = 1024, *, truncate: bool = True, each: bool = False
    ) -> int | list[int]:
        """Number of tokens that the model would see, special tokens included.

        Args:
            texts: one text, or an iterable of texts.
            batch_size: number of texts tokenized at once.
            truncate: count what is read of long texts; False: all of them.
            each: return a list with the number of each text; False: the total.
        """
        arguments = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        return calls.counted(self._model.get().documents.token_counts(*arguments, truncate=truncate), each=each)

    def _asked(self, method: str, options: Mapping[str, Any], texts: Any) -> VectorCall:
        """A call, checked."""
        return self._checked_call(
            calls.call(method, options, self._overflow, heads.mean, vectors.OPTIONS), options, texts
        )

    def _asked_chunks(self, method: str, options: Mapping[str, Any], texts: Any, *, late_chunking: bool) -> VectorCall:
        """A call for chunks, checked."""
        if late_chunking and self._model.is_loaded and self._model.get().late_chunks is None:
            raise self._no_late_chunks()
        call = calls.call(
            method,
            calls.in_chunks(options),
            self._overflow,
            heads.concatenated if late_chunking else heads.listed,
            vectors.OPTIONS,
        )
        if call.overflow.chunking is not None:
            whole = call.overflow.chunking._replace(late=late_chunking)
            call = call._replace(overflow=call.overflow._replace(chunking=whole))
        return self._checked_call(call, options, texts)

    def _checked_call(self, call: calls.Call, options: Mapping[str, Any], texts: Any) -> VectorCall:
        size = self._model.get().settings.dim if self._model.is_loaded else self._dim
        form = vectors.form(options, self._form, size)
        self._dimensions.check(form.dim, size)
        return VectorCall(self._model, call, form, calls.total(texts))

    def _of_chunks(self, prefixes: bool | None, *, late_chunking: bool) -> Callable[[DenseModel], Pipeline[Vector]]:
        def choose(model: DenseModel) -> Pipeline[Vector]:
            if not late_chunking:
                return self._prefixed(model.passages, prefixes)
            if model.late_chunks is None:
                raise self._no_late_chunks()
            return self._prefixed(model.late_chunks, prefixes)

        return choose

    def _no_late_chunks(self) -> ValueError:
        return ValueError(
            f"late_chunking averages the states of a chunk's tokens; {self.model_name} has another pooling than the "
            "mean, or its graph pools by itself. Leave late_chunking out"
        )

    def _documents(self, model: LoadedModel[Pipeline[Vector], Any, Any], task_id: int | None) -> Pipeline[Vector]:
        """The pipeline for documents, for a task."""
        documents = self._prefixed(model.documents, None)
        if task_id is None:
            return documents
        return replace(documents, extra_inputs=extra_inputs(self._task_input, "embed", task_id))

    def _queries(self, model: DenseModel, prefixes: bool | None, instruction: str | None) -> Pipeline[Vector]:
        """The pipeline for queries, with the model's prefix or this instruction in it."""
        if instruction is None:
            return self._prefixed(model.queries, prefixes)
        inputs.text(instruction, "instruction")
        if not (self._prefixes if prefixes is None else prefixes):
            raise ValueError("instruction is a part of the query prefix, which prefixes=False leaves out")
        prefix = instructed(model.queries.prefix, instruction)
        if prefix is None:
            raise ValueError(f"{self.model_name} takes no instruction: its query prefix is {model.queries.prefix!r}")
        return model.queries.with_prefix(prefix)

    def _prefixed(self, pipeline: Pipeline[Vector], prefixes: bool | None) -> Pipeline[Vector]:
        """The pipeline with its prefix, or without."""
        return pipeline if (self._prefixes if prefixes is None else prefixes) else pipeline.with_prefix("")

    def _checked_task(self, task_id: int | None) -> int | None:
        """`task_id`, if it is one of the model's tasks; ValueError if not."""
        if task_id is None:
            return None
        if self._task_input is None:
            raise ValueError(f"{self.model_name} has no tasks; task_id is for models that have them")
        if task_id not in self._task_input.tasks.values():
            tasks = ", ".join(f"{number} ({name})" for name, number in self._task_input.tasks.items())
            raise ValueError(f"task_id must be one of {tasks}, not {task_id!r}")
        return int(task_id)

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def embedding_size(self) -> int:
        """The size of a vector.

        For a custom model added without `dim`, it is read from the model's files, or taken from a first run.
        """
        return self._dim or self._settings().dim or len(next(self.embed("")))

    def note_dim(self, dim: int | None) -> None:
        """Warn, once, if the model is not known to be trained for vectors of this size; for those who cut them."""
        if dim is not None and dim < self.embedding_size:
            self._dimensions.check(dim, self.embedding_size)

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The size of a model's vectors, without loading it.

        Raises:
            ModelNotFoundError: there is no such model.
            ValueError: a custom model was added without `dim`.
        """
        spec = registry.find(model_name, TEXT_EMBEDDING)
        if dim := spec.task(TEXT_EMBEDDING, DenseTask).dim:
            return dim
        raise ValueError(
            f"{spec.name} was added without dim. Load it and use its embedding_size, or pass dim to add_custom_model"
        )

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Registry entries and custom models, as dicts with FastEmbed's keys. Changing them has no effect."""
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
        truncate_dims: Sequence[int] | None = None,
    ) -> None:
        """Register a model in this process, so that the constructor accepts its name.

        Settings that are not passed come from the repository's own files:
        `TextEmbedding.add_custom_model("organisation/model")` is enough for a model saved by sentence-transformers.
        Files are downloaded from one commit of the hub's main branch and checked against the sizes and hashes that the
        hub reports. No code of the repository is run.

        Args:
            model: its name, such as "organisation/model".
            pooling: how token embeddings become one vector; `PoolingType.DISABLED` if the graph does it. None: as the
                repository's modules.json says; without one, loading fails.
            normalization: whether vectors are L2-normalized. None: as the repository's modules.json says.
            sources: `ModelSource(hf="organisation/repository")`. None: the repository named `model`.
            dim: the expected size of a vector; another size is an error.
            model_file: path of the ONNX graph in the repository, or "model.safetensors". None: the first usual ONNX
                path that exists ("onnx/model.onnx", "model.onnx", ...), else "model.safetensors".
            description: shown by `list_supported_models`.
            license: shown by `list_supported_models`.
            size_in_gb: accepted for FastEmbed's sake and ignored; the size is that of the files.
            additional_files: further files the graph needs. External data ("<model_file>_data") is found without it.
            output_name: the graph output to use. None: the first.
            max_length: maximum number of tokens per text. None: as the files say.
            query_prefix: put before texts by `query_embed`. Both prefixes None: the repository's prompts.
            passage_prefix: put before texts by `passage_embed`.
            truncate_dims: the sizes of shorter vectors that it was trained for (Matryoshka); others are a warning.

        Raises:
            ValueError: the name is taken, or a name, path or option is invalid.
        """
        del size_in_gb
        own_prompts = query_prefix is None and passage_prefix is None
        settings = DenseTask(
            dim=None if dim is None else inputs.positive(dim, "dim"),
            pooling=None if pooling is None else _POOLINGS[PoolingType(pooling)],
            normalize=None if normalization is None else bool(normalization),
            prefixes=None if own_prompts else Prefixes(query_prefix or "", passage_prefix or ""),
            output=output_name,
            matryoshka=vectors.trained_for(truncate_dims),
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
