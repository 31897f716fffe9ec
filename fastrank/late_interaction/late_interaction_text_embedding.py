"""One vector a token, for texts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fastrank import inputs
from fastrank.engine.loaded import Lazy
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.engine.pooling import Floats
from fastrank.late_interaction import loading
from fastrank.late_interaction.loading import LateInteractionModel
from fastrank.late_interaction.tokens import LateInteractionTokenizer
from fastrank.maxsim import maxsim
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import LATE_INTERACTION, NORMALIZED, LateInteractionTask, ModelSource
from fastrank.rerank.ranking import Document, RankedDocument, best, listed, text_of
from fastrank.store.lookup import Lookup


class LateInteractionTextEmbedding(PublicModel):
    """One vector a token for texts, with FastEmbed's names, order and defaults.

    >>> from fastrank import LateInteractionTextEmbedding
    >>> model = LateInteractionTextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    >>> [vectors.shape for vectors in model.embed(["first text", "a longer second text"])]
    [(4, 384), (6, 384)]
    >>> list(model.rerank("capital of France", ["Paris is its capital.", "Berlin is not."]))
    [4.0..., 1.5...]

    Query and document are compared by MaxSim: for each token of the query the nearest of the document, summed. Khattab
    and Zaharia, 2020. An instance may be used by many threads at once; they share one loaded model.

    The settings of a model that has no entry in the registry come from its own folder, as PyLate, ColBERT or
    sentence-transformers' MultiVectorEncoder save it: modules, prompts, markers, lengths, what fills queries up, what
    is skipped, token pooling. Every field of its files is applied or harmless, or the model is refused
    (docs/folders.md lists them). With the name of an entry its settings hold, whatever folder is given.

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
        variant: which of the model's variants to use, such as "onnx" or "safetensors"; None: the first that is on this
            machine, else the first that can be had.
        max_length: tokens a document may have, marker and special ones included; None: the model's own limit.
        device_id: one GPU; the same as `device_ids=[device_id]`.
        enable_cpu_mem_arena: onnxruntime's memory arena on the CPU.
        precision: "fp32", "fp16" (for GPUs), "int8" or "int8-fast" (for CPUs), the latter three made of a checkpoint
            (README "Precision"); "auto": that of the model's files.
        verify: hash the model's files before they are loaded, not only when they are fetched.
        special_tokens_in_text: False: "[SEP]" in a text is read as these letters, not as the special token.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        ModelNotCachedError: offline, and the model is not on this machine.
        DownloadError: no source of the model could be used; the message lists them all.
        ModelLoadError: the files cannot be used.
        ProviderError: a provider that was asked for is not there; the message lists those that are.
    """

    def __init__(
        self,
        model_name: str,
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
            spec = registry.find(model_name, LATE_INTERACTION)
        else:
            spec = registry.find_or_own(model_name, LATE_INTERACTION, LateInteractionTask())
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        self._dim = spec.task(LATE_INTERACTION, LateInteractionTask).dim
        request = Request(
            spec,
            Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
            Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
            None if max_length is None else inputs.positive(max_length, "max_length"),
            special_tokens_in_text,
        )
        request = checked(request)
        self._settings = partial(loading.settings, request)
        self._model: Lazy[LateInteractionModel] = Lazy(partial(loading.load, request))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Floats]:
        """The token vectors of documents.

        Lazy: texts are read ahead by at most 256 (4,096 for a GPU; or `batch_size`, if that is more), so an endless
        iterator is fine.

        Args:
            documents: one text, or an iterable of texts.
            batch_size: the most texts that run together; usually fewer do, as a budget of tokens decides.
            parallel: batches that run at once, on threads that share the weights; None: what suits this machine,
                0: one a processor.

        Returns:
            An iterator of float32 arrays of shape (tokens, dim), one a text, in order. Special tokens have vectors too,
            those that the model skips (punctuation, mostly) have none.

        Raises:
            TypeError: at the call, if `documents` is no string and no iterable; when it is reached, if an item is no
                string. What came before it is delivered first.
            ValueError: `batch_size` or `parallel` is out of range.
            OutputError: the model returned NaN or infinity; the message names the text.
        """
        return self._documents(inputs.texts(documents), batch_size, parallel)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Floats]:
        """The token vectors of passages: the same as `embed`."""
        return self._documents(inputs.texts(texts, "texts"), batch_size, parallel)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Floats]:
        """The token vectors of queries. What fills a short query up has vectors too.

        Args and errors are those of `embed`.
        """
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return self._model.get().queries.run(*arguments)

    def aembed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[Floats]:
        """`embed` for asyncio: an async iterator that never blocks the loop but to read `documents`.

        The texts run on the threads that `embed` uses, together with those of other tasks. Cancelling the task, or
        closing the iterator, stops what has not begun.
        """
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: model.documents, *arguments)

    def aquery_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[Floats]:
        """`query_embed` for asyncio, as `aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: model.queries, *arguments)

    def token_count(
        self,
        texts: str | Iterable[str],
        batch_size: int = 1024,
        is_doc: bool = True,
        include_extension: bool = False,
    ) -> int:
        """Tokens of all texts together, after truncation, special tokens included.

        Args:
            texts: one text, or an iterable of texts.
            batch_size: how many are tokenized at once.
            is_doc: whether they are documents, or queries.
            include_extension: count markers and what fills queries up.
        """
        found, size = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        pipeline = self._model.get().documents if is_doc else self._model.get().queries
        if not include_extension and isinstance(pipeline.tokenizer, LateInteractionTokenizer):
            pipeline = replace(pipeline, tokenizer=pipeline.tokenizer.plain())
        return pipeline.token_count(found, size)

    # -- scores -----------------------------------------------------------------------------------------------------

    def rerank(
        self, query: str, documents: Iterable[str], batch_size: int = 64, parallel: int | None = None
    ) -> Iterator[float]:
        """The MaxSim of each document and the query, in the order given: not sorted (see `rank`).

        Lazy, as `embed` is. For vectors that were made before there is `fastrank.maxsim`.

        Args:
            query: one text.
            documents: texts.
            batch_size: the most documents that run together; usually fewer do, as a budget of tokens decides.
            parallel: as `embed`.

        Returns:
            An iterator of Python floats: at most the number of the query's tokens, where vectors have length 1.

        Raises:
            TypeError: at the call, if the query is no string or `documents` is a string or no iterable; when it is
                reached, if a document is no string. What came before it is delivered first.
            ValueError: `batch_size` or `parallel` is out of range.
            OutputError: the model returned NaN or infinity; the message names the document.
        """
        query = inputs.text(query, "query")
        return self._scores(query, self._documents(inputs.documents(documents), batch_size, parallel))

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
    ) -> list[RankedDocument]:
        """The documents, best first; equal scores in the order given.

        Args:
            query: one text.
            documents: texts, or mappings with the text under `field`.
            top_k: how many to return; None: all.
            batch_size: as `rerank`.
            parallel: as `rerank`.
            field: where mappings have their text.

        Raises:
            TypeError: as `rerank`, and if a mapping has no text under `field`.
        """
        most = None if top_k is None else inputs.positive(top_k, "top_k")
        ranked = listed(documents)
        texts = [text_of(document, field, f"documents[{position}]") for position, document in enumerate(ranked)]
        return best(list(self.rerank(query, texts, batch_size, parallel)), ranked, most)

    def arerank(
        self, query: str, documents: Iterable[str], batch_size: int = 64, parallel: int | None = None
    ) -> AsyncIterator[float]:
        """`rerank` for asyncio, as `aembed`."""
        query, texts = inputs.text(query, "query"), inputs.documents(documents)
        size, workers = inputs.batching(batch_size, parallel)
        return self._ascores(query, texts, size, workers)

    async def arank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
    ) -> list[RankedDocument]:
        """`rank` for asyncio; cancelling the task stops what has not begun."""
        most = None if top_k is None else inputs.positive(top_k, "top_k")
        ranked = listed(documents)
        texts = [text_of(document, field, f"documents[{position}]") for position, document in enumerate(ranked)]
        scores = [score async for score in self.arerank(query, texts, batch_size, parallel)]
        return best(scores, ranked, most)

    def _documents(self, texts: Iterator[str], batch_size: int, parallel: int | None) -> Iterator[Floats]:
        arguments = inputs.batching(batch_size, parallel)
        return self._model.get().documents.run(texts, *arguments)

    def _scores(self, query: str, documents: Iterator[Floats]) -> Iterator[float]:
        asked = next(self.query_embed(query))
        for vectors in documents:
            yield float(maxsim(asked, [vectors])[0])

    async def _ascores(
        self, query: str, texts: Iterator[str], batch_size: int, workers: int | None
    ) -> AsyncIterator[float]:
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        asked = [vectors async for vectors in self.aquery_embed(query)][0]  # noqa: RUF015 - there is no anext for all
        async for vectors in asynchronous.run(self._model, lambda model: model.documents, texts, batch_size, workers):
            yield float(maxsim(asked, [vectors])[0])

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def embedding_size(self) -> int:
        """The length of a token's vector."""
        return self._dim or self._settings().dim

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The length of a model's token vectors, without loading it.

        Raises:
            ModelNotFoundError: no such model.
            ValueError: a custom model that was added without `dim`.
        """
        spec = registry.find(model_name, LATE_INTERACTION)
        if dim := spec.task(LATE_INTERACTION, LateInteractionTask).dim:
            return dim
        raise ValueError(f"{spec.name} was added without dim; a LateInteractionTextEmbedding of it has embedding_size")

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models of the registry and custom ones, as fresh dicts with FastEmbed's keys."""
        return [registry.describe(spec, LATE_INTERACTION) for spec in registry.entries(LATE_INTERACTION)]

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: ModelSource | None = None,
        dim: int | None = None,
        model_file: str | None = None,
        description: str = "",
        license: str = "",  # noqa: A002 - as in TextEmbedding
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
        *,
        query_prefix_token: int | str | None = None,
        document_prefix_token: int | str | None = None,
        prefix_position: int = 1,
        query_length: int | None = None,
        mask_token: str = "[MASK]",  # noqa: S107 - no password
        attend_to_expansion_tokens: bool = False,
        query_max_length: int | None = None,
        max_length: int | None = None,
        skiplist: Sequence[str] = (),
        normalize: Literal["both", "documents", "none"] = "both",
        projection: bool = True,
        output_name: str | None = None,
    ) -> None:
        """Make a model known to this process, so that the constructor takes its name.

        What is not given, the repository's own files say: the name is enough for a model that PyLate or ColBERT saved.
        Its files are fetched from the hub's main branch, of one commit, and checked against what the hub states of
        them. None of them is executed.

        Args:
            model: its name, like "organisation/model".
            sources: `ModelSource(hf="organisation/repository")`; None: the repository with the model's name.
            dim: the length of a token's vector. None: it and all settings below but `max_length` are what the model's
                folder says, as PyLate (modules.json, config_sentence_transformers.json) or ColBERT (artifact.metadata)
                save it.
            model_file: the graph's path in the repository, or "model.safetensors" of a checkpoint. None: the first
                usual ONNX graph it has, else "model.safetensors".
            description: shown in lists.
            license: shown in lists.
            size_in_gb: accepted as in `TextEmbedding`; the size is taken from the files.
            additional_files: further files the graph needs; "<model_file>_data" and the like are found without.
            query_prefix_token: a token, or its id, that is put into each query; None: none.
            document_prefix_token: the same for documents.
            prefix_position: how many tokens stand before the marker.
            query_length: shorter queries are filled up to so many tokens; None: they are not.
            mask_token: with this token.
            attend_to_expansion_tokens: whether the tokens that fill up are attended to.
            query_max_length: tokens a query may have, all included; None: as `max_length`.
            max_length: tokens a text may have, all included; None: what the files say.
            skiplist: texts whose first token leaves no vector in documents, such as `string.punctuation`.
            normalize: which vectors are brought to length 1 after the graph.
            projection: whether a checkpoint has linear layers on top of its hidden states.
            output_name: the graph's output to use; None: the first.

        Raises:
            ValueError: the name is taken, or a name, path or option is malformed.
        """
        del size_in_gb
        if normalize not in NORMALIZED:
            raise ValueError(f"normalize must be one of {', '.join(map(repr, NORMALIZED))}, not {normalize!r}")
        told = LateInteractionTask(
            dim=0 if dim is None else inputs.positive(dim, "dim"),
            query_prefix_token=query_prefix_token,
            document_prefix_token=document_prefix_token,
            prefix_position=prefix_position,
            query_length=None if query_length is None else inputs.positive(query_length, "query_length"),
            mask_token=mask_token,
            attend_to_expansion_tokens=attend_to_expansion_tokens,
            query_max_length=None
            if query_max_length is None
            else inputs.positive(query_max_length, "query_max_length"),
            skiplist=tuple(skiplist),
            normalize=normalize,
            projection=projection,
            output=output_name,
        )
        spec = custom_spec(
            model,
            LATE_INTERACTION,
            told,
            sources,
            model_file=model_file,
            additional_files=tuple(additional_files or ()),
            description=description,
            license=license,
            max_length=max_length,
        )
        registry.add(spec, LATE_INTERACTION)
