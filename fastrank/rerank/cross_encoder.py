"""Cross-encoders: one score per (query, document) pair."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from fastrank import inputs
from fastrank.engine import calls
from fastrank.engine.calls import OverflowMode, TextOptions
from fastrank.engine.loaded import DOCUMENTS, Lazy, Names, TextPipeline
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.engine.pipeline import Pipeline
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import ACTIVATIONS, CROSS_ENCODER, CrossEncoderTask, ModelSource
from fastrank.rerank import heads, loading
from fastrank.rerank.loading import CrossEncoderModel
from fastrank.rerank.ranking import Document, RankedDocument, best, checked_top_k, listed, texts_of
from fastrank.store.lookup import Lookup

_TRUNCATIONS = ("longest_first", "only_second")


class TextCrossEncoder(PublicModel):
    """Cross-encoder scores of documents for a query. Names, order and defaults are FastEmbed's.

    Examples:
        >>> from fastrank import TextCrossEncoder
        >>> model = TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2")
        >>> list(model.rerank("capital of France", ["Paris is its capital.", "Berlin is not."]))
        [8.5..., -2.5...]

    A cross-encoder reads query and document together: slower than comparing vectors, and more accurate, so it reranks a
    few candidates. Pairs, also of several queries, are sorted by length and batched with little padding.

    See `TextEmbedding` for the arguments and errors that all models share.

    Args:
        max_length: maximum number of tokens per pair, special tokens included. None: the model's limit.
        truncation: what is cut from pairs that are too long. "longest_first", as the reference implementations do, may
            cut the query; "only_second" cuts the document, and the query only if it alone is too long. Prompts of
            language models lose the end of the document, and keep what follows it.
        overflow: what is done with documents that do not fit beside the query. "truncate": as `truncation` says;
            "error": TextTooLongError; "chunk": all of a document is read, in chunks, and its score is that of the best.
        chunk_size: the most tokens of a chunk, the query not counted. None: as many as the model takes.
        chunk_overlap: the most tokens that a chunk shares with the one before. None: 0.
        activation: from logits to score: "none" for raw logits, "sigmoid", or "softmax" over the classes. "auto": as
            sentence-transformers does: the `activation_fn` in the model's folder, else a sigmoid for models with one
            label. None: raw logits, as in FastEmbed. A sigmoid changes scores, but not their order.
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
        truncation: Literal["longest_first", "only_second"] = "longest_first",
        activation: Literal["none", "sigmoid", "softmax", "auto"] | None = None,
        device_id: int | None = None,
        enable_cpu_mem_arena: bool = True,
        precision: str = "auto",
        verify: bool = False,
        special_tokens_in_text: bool = True,
        overflow: OverflowMode = "truncate",
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
    ) -> None:
        _check_choice("truncation", truncation, _TRUNCATIONS)
        _check_choice("activation", activation, (None, *ACTIVATIONS, "auto"))
        if specific_model_path is None:
            spec = registry.find(model_name, CROSS_ENCODER)
        else:
            spec = registry.find_or_own(model_name, CROSS_ENCODER, CrossEncoderTask(modules=None))
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        task = spec.task(CROSS_ENCODER, CrossEncoderTask)
        request = Request(
            spec,
            Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
            Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
            None if max_length is None else inputs.positive(max_length, "max_length"),
            special_tokens_in_text,
        )
        task = task if activation is None else task._replace(activation=activation)
        self._overflow = calls.overflow(
            {"overflow": overflow, "chunk_size": chunk_size, "chunk_overlap": chunk_overlap}, join=heads.best
        )
        self._model: Lazy[CrossEncoderModel] = Lazy(partial(loading.load, checked(request), task, truncation))
        if not lazy_load:
            self._model.get()

    # -- scores -----------------------------------------------------------------------------------------------------

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        instruction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> Iterator[float]:
        """The score of each document, in the order of the documents (`rank` sorts them).

        Lazy: at most 256 documents, or 64 a thread, are read ahead (4,096 on a GPU; `batch_size` if larger).

        Args:
            query: one text.
            documents: texts.
            batch_size: maximum number of pairs per batch. Batches are usually smaller: a token budget limits them.
            parallel: number of batches that run at once, on threads that share the weights. None: chosen for this
                machine; 0: one per CPU core.
            instruction: what makes a document relevant, for models whose prompt has a place for it (Qwen3-Reranker);
                with sentence-transformers it is `prompt=`. None: the model's own.
            options: `overflow`, `chunk_size`, `chunk_overlap`: as in the constructor, for this call. `prompt`: put
                before the query, in place of the model's own; the same as `instruction` for models that take one.
                `on_truncated`: a function that is called with the
                position of each document whose pair was cut. `show_progress`: draw a progress bar (tqdm).

        Returns:
            An iterator of Python floats: raw logits, unless the model has another `activation`.

        Raises:
            TypeError: at the call, if the query is not a string, or `documents` is a string or not iterable, or an
                option is unknown; while iterating, if a document is not a string. Scores of earlier documents are
                delivered first.
            ValueError: an argument is out of range, or the model takes no instruction.
            OutputError: the model returned NaN or infinity; the message names the document.
            TextTooLongError: with `overflow="error"`; with "chunk", if the query leaves no room for a document.
        """
        call = self._call("rerank", options)
        query = inputs.text(query, "query")
        pairs = ((query, text) for text in inputs.documents(documents))
        return call.shown(
            self._scores(pairs, batch_size, parallel, call, instruction), "rerank", calls.total(documents)
        )

    def rerank_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        instruction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> Iterator[float]:
        """The score of each (query, document) pair, in order; a single tuple is one pair."""
        call = self._call("rerank_pairs", options)
        scores = self._scores(inputs.pairs(pairs), batch_size, parallel, call, instruction, "pairs[{}]".format)
        return call.shown(scores, "rerank", calls.total(pairs))

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
        instruction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> list[RankedDocument]:
        """The documents, best first; ties keep the order of the documents.

        Args:
            query: one text.
            documents: texts, or mappings with the text under `field`.
            top_k: maximum number of results. None: all.
            batch_size: as in `rerank`.
            parallel: as in `rerank`.
            field: the key of a mapping's text.
            instruction: as in `rerank`.
            options: as in `rerank`.

        Raises:
            TypeError: as in `rerank`, or a mapping has no text under `field`.
        """
        call = self._call("rank", options)
        ranked = listed(documents)
        pairs = _pairs(inputs.text(query, "query"), ranked, field, "documents")
        most = checked_top_k(top_k)
        scores = call.shown(self._scores(iter(pairs), batch_size, parallel, call, instruction), "rank", len(pairs))
        return best(list(scores), ranked, most)

    def rank_batch(
        self,
        queries: Sequence[str],
        documents: Iterable[Iterable[Document]],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
        instruction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> list[list[RankedDocument]]:
        """`rank` for many queries, each with its own documents; queries share batches.

        Raises:
            TypeError: as in `rank`.
            ValueError: the numbers of queries and of lists of documents differ.
            OutputError: the model returned NaN or infinity; `documents[1][2]` is the third document of the second
                query.
        """
        call = self._call("rank_batch", options)
        lists = [listed(each, f"documents[{n}]") for n, each in enumerate(documents)]
        most = checked_top_k(top_k)
        query_list = list(inputs.documents(queries, "queries"))
        if len(query_list) != len(lists):
            raise ValueError(f"got {len(query_list)} queries, but {len(lists)} lists of documents")
        pairs = [
            pair
            for n, (query, ranked) in enumerate(zip(query_list, lists, strict=True))
            for pair in _pairs(query, ranked, field, f"documents[{n}]")
        ]
        ends = list(accumulate(map(len, lists), initial=0))

        def named(position: int) -> str:
            n = bisect_right(ends, position) - 1
            return f"documents[{n}][{position - ends[n]}]"

        scores = list(
            call.shown(self._scores(iter(pairs), batch_size, parallel, call, instruction, named), "rank", len(pairs))
        )
        return [
            best(scores[start:end], ranked, most) for ranked, start, end in zip(lists, ends, ends[1:], strict=False)
        ]

    def arerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        instruction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> AsyncIterator[float]:
        """`rerank` for asyncio; see `TextEmbedding.aembed`."""
        call = self._call("arerank", options)
        query = inputs.text(query, "query")
        pairs = ((query, text) for text in inputs.documents(documents))
        return self._ascores(pairs, batch_size, parallel, call, instruction, calls.total(documents))

    async def arank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
        instruction: str | None = None,
        **options: Unpack[TextOptions],
    ) -> list[RankedDocument]:
        """`rank` for asyncio; cancelling the task stops work that has not started."""
        call = self._call("arank", options)
        ranked = listed(documents)
        pairs = _pairs(inputs.text(query, "query"), ranked, field, "documents")
        most = checked_top_k(top_k)
        scores = [
            score async for score in self._ascores(iter(pairs), batch_size, parallel, call, instruction, len(pairs))
        ]
        return best(scores, ranked, most)

    @overload
    def token_count(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int = ...,
        *,
        truncate: bool = ...,
        each: Literal[False] = ...,
    ) -> int: ...

    @overload
    def token_count(
        self, pairs: Iterable[tuple[str, str]], batch_size: int = ..., *, truncate: bool = ..., each: Literal[True]
    ) -> list[int]: ...

    def token_count(
        self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024, *, truncate: bool = True, each: bool = False
    ) -> int | list[int]:
        """Number of tokens that the model would see, special tokens included; see `TextEmbedding.token_count`."""
        arguments = inputs.pairs(pairs), inputs.positive(batch_size, "batch_size")
        return calls.counted(self._model.get().documents.token_counts(*arguments, truncate=truncate), each=each)

    def _call(self, method: str, options: Mapping[str, Any]) -> calls.Call:
        return calls.call(method, options, self._overflow, heads.best, set())

    def _scores(
        self,
        pairs: Iterator[tuple[str, str]],
        batch_size: int,
        parallel: int | None,
        call: calls.Call,
        instruction: str | None = None,
        names: Names = DOCUMENTS,
    ) -> Iterator[float]:
        arguments = inputs.batching(batch_size, parallel)
        return self._pipeline(self._model.get(), call, instruction).run(pairs, *arguments, names)

    def _ascores(
        self,
        pairs: Iterator[tuple[str, str]],
        batch_size: int,
        parallel: int | None,
        call: calls.Call,
        instruction: str | None,
        total: int | None,
    ) -> AsyncIterator[float]:
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.batching(batch_size, parallel)
        scores = asynchronous.run(
            self._model, lambda model: self._pipeline(model, call, instruction), pairs, *arguments
        )
        return asynchronous.shown(scores, "rerank", total) if call.show_progress else scores

    def _pipeline(self, model: CrossEncoderModel, call: calls.Call, instruction: str | None) -> TextPipeline[float]:
        """The pipeline as a call wants it; its prompt is the instruction of a model that takes one."""
        if call.prompt is not None and instruction is None:
            tokenizer = loading.instructed(model.documents.tokenizer, call.prompt)
            if tokenizer is not None:
                return replace(model.documents, tokenizer=tokenizer).asked(None, call.overflow)
        return call.pipeline(self._instructed(model, instruction))

    def _instructed(self, model: CrossEncoderModel, instruction: str | None) -> Pipeline[float]:
        """The pipeline with this instruction in its prompts; None: the model's own."""
        if instruction is None:
            return model.documents
        inputs.text(instruction, "instruction")
        tokenizer = loading.instructed(model.documents.tokenizer, instruction)
        if tokenizer is None:
            raise ValueError(f"{self.model_name} takes no instruction: it has no prompt that one could be put into")
        return replace(model.documents, tokenizer=tokenizer)

    # -- the model --------------------------------------------------------------------------------------------------

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Registry entries and custom models, as dicts with FastEmbed's keys. Changing them has no effect."""
        return [registry.describe(spec, CROSS_ENCODER) for spec in registry.entries(CROSS_ENCODER)]

    @classmethod
    def add_custom_model(  # noqa: D417 - the others are documented in TextEmbedding
        cls,
        model: str,
        sources: ModelSource | None = None,
        model_file: str | None = None,
        description: str = "",
        license: str = "",  # noqa: A002 - FastEmbed's name
        size_in_gb: float = 0.0,
        additional_files: Sequence[str] | None = None,
        *,
        label: int | None = None,
        activation: Literal["none", "sigmoid", "softmax", "auto"] = "none",
        modules: bool | None = None,
        max_length: int | None = None,
    ) -> None:
        """Register a model in this process, so that the constructor accepts its name.

        The name is enough for a model with one label. See `TextEmbedding.add_custom_model` for where files and settings
        come from, and for the arguments and errors that all models share.

        Args:
            model_file: path of the ONNX graph in the repository, or "model.safetensors" of a sequence-classification
                checkpoint. None: the first usual ONNX path that exists, else "model.safetensors".
            label: the class whose logit is the score; required if the model has several.
            activation: from logits to score; "softmax" needs a `label`; "auto": as the model's folder says.
            modules: whether the graph is the encoder only, and sentence-transformers modules (Pooling, Dense,
                LayerNorm) compute the score. None: if the repository's modules.json lists any after the transformer.
            max_length: maximum number of tokens per pair. None: as the files say.
        """
        del size_in_gb
        _check_choice("activation", activation, (*ACTIVATIONS, "auto"))
        spec = custom_spec(
            model,
            CROSS_ENCODER,
            CrossEncoderTask(activation, label, modules),
            sources,
            model_file=model_file,
            additional_files=tuple(additional_files or ()),
            description=description,
            license=license,
            max_length=max_length,
        )
        registry.add(spec, CROSS_ENCODER)


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _pairs(query: str, documents: Sequence[Document], field: str, name: str) -> list[tuple[str, str]]:
    """(query, text) for each document. `name` is what errors call the documents."""
    return [(query, text) for text in texts_of(documents, field, name)]
