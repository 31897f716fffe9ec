"""Scores of query and document, read together: reranking."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from fastrank import inputs
from fastrank.engine.loaded import DOCUMENTS, Lazy, Names
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import ACTIVATIONS, CROSS_ENCODER, CrossEncoderTask, ModelSource
from fastrank.rerank import loading
from fastrank.rerank.loading import CrossEncoderModel
from fastrank.rerank.ranking import Document, RankedDocument, best, listed, text_of
from fastrank.store.lookup import Lookup

_TRUNCATIONS = ("longest_first", "only_second")


class TextCrossEncoder(PublicModel):
    """Scores of documents for a query, with FastEmbed's names, order and defaults.

    >>> from fastrank import TextCrossEncoder
    >>> model = TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2")
    >>> list(model.rerank("capital of France", ["Paris is its capital.", "Berlin is not."]))
    [8.5..., -2.5...]

    A cross-encoder reads query and document together: slower than comparing vectors and better at telling which of
    some candidates answers. Pairs of all lengths, and of all queries given at once, are sorted by length and run in
    batches that pad little.

    Args:
        model_name: a name or alias of the registry, in any case (see `list_supported_models`), one made known by
            `add_custom_model`, or any name for the model in `specific_model_path`.
        cache_dir: where models are kept; None: FASTRANK_CACHE, else the user's cache folder.
        threads: processors to use; None: those this process may use.
        providers: onnxruntime execution providers, used as given.
        cuda: `Device.AUTO` takes CUDA if this onnxruntime has it, True or `Device.CUDA` insists.
        device_ids: GPUs to use, one session each.
        lazy_load: find, fetch and load the model at the first use instead of now.
        specific_model_path: a folder with an ONNX graph or a safetensors checkpoint and tokenizer.json.
        local_files_only: open no connection.
        variant: which of the model's variants to use.
        max_length: tokens a pair may have, special ones included; None: the model's own limit.
        truncation: what is cut of a pair that is longer: "longest_first" as the reference implementations do, which may
            cut the query; "only_second" cuts the document and never the query, unless that alone is too long.
        activation: from logits to score: "none" for raw logits, "sigmoid", or "softmax" over the classes; "auto": what
            sentence-transformers takes for the model's folder: the `activation_fn` it names, else a sigmoid where the
            model has one label. None: FastEmbed's raw logit, for models of the registry and folders alike, so that
            scores stay comparable with those made before; both put documents into the same order.
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
        ProviderError: a provider that was asked for is not there.
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
        self._model: Lazy[CrossEncoderModel] = Lazy(partial(loading.load, checked(request), task, truncation))
        if not lazy_load:
            self._model.get()

    # -- scores -----------------------------------------------------------------------------------------------------

    def rerank(
        self, query: str, documents: Iterable[str], batch_size: int = 64, parallel: int | None = None
    ) -> Iterator[float]:
        """The score of each document, in the order given: not sorted (see `rank`).

        Lazy: documents are read ahead by at most 256 (4,096 for a GPU; or `batch_size`, if that is more).

        Args:
            query: one text.
            documents: texts.
            batch_size: the most pairs that run together; usually fewer do, as a budget of tokens decides.
            parallel: batches that run at once, on threads that share the weights; None: what suits this machine,
                0: one a processor.

        Returns:
            An iterator of Python floats: raw logits, unless the model was made with another `activation`.

        Raises:
            TypeError: at the call, if the query is no string or `documents` is a string or no iterable; when it is
                reached, if a document is no string. What came before it is delivered first.
            ValueError: `batch_size` or `parallel` is out of range.
            OutputError: the model returned NaN or infinity; the message names the document.
        """
        query = inputs.text(query, "query")
        return self._scores(((query, text) for text in inputs.documents(documents)), batch_size, parallel)

    def rerank_pairs(
        self, pairs: Iterable[tuple[str, str]], batch_size: int = 64, parallel: int | None = None
    ) -> Iterator[float]:
        """The score of each (query, document) pair, in the order given; a single tuple is one pair."""
        return self._scores(inputs.pairs(pairs), batch_size, parallel, "pairs[{}]".format)

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
        ranked = listed(documents)
        pairs = _pairs(inputs.text(query, "query"), ranked, field, "documents")
        most = _most(top_k)
        return best(list(self._scores(iter(pairs), batch_size, parallel)), ranked, most)

    def rank_batch(
        self,
        queries: Sequence[str],
        documents: Iterable[Iterable[Document]],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
    ) -> list[list[RankedDocument]]:
        """`rank` for many queries, each with documents of its own; batches are shared by all of them.

        Raises:
            TypeError: as `rank`.
            ValueError: there are not as many lists of documents as queries.
            OutputError: the model returned NaN or infinity; `documents[1][2]` is the third of the second query.
        """
        lists = [listed(each, f"documents[{n}]") for n, each in enumerate(documents)]
        most = _most(top_k)
        asked = list(inputs.documents(queries, "queries"))
        if len(asked) != len(lists):
            raise ValueError(f"{len(asked)} queries, but documents for {len(lists)}")
        pairs = [
            pair
            for n, (query, ranked) in enumerate(zip(asked, lists, strict=True))
            for pair in _pairs(query, ranked, field, f"documents[{n}]")
        ]
        ends = list(accumulate(map(len, lists), initial=0))

        def named(position: int) -> str:
            n = bisect_right(ends, position) - 1
            return f"documents[{n}][{position - ends[n]}]"

        scores = list(self._scores(iter(pairs), batch_size, parallel, named))
        return [
            best(scores[start:end], ranked, most) for ranked, start, end in zip(lists, ends, ends[1:], strict=False)
        ]

    def arerank(
        self, query: str, documents: Iterable[str], batch_size: int = 64, parallel: int | None = None
    ) -> AsyncIterator[float]:
        """`rerank` for asyncio: an async iterator that never blocks the loop but to read `documents`.

        The pairs run on the threads that `rerank` uses, together with those of other tasks. Cancelling the task, or
        closing the iterator, stops what has not begun.
        """
        query = inputs.text(query, "query")
        return self._ascores(((query, text) for text in inputs.documents(documents)), batch_size, parallel)

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
        ranked = listed(documents)
        pairs = _pairs(inputs.text(query, "query"), ranked, field, "documents")
        most = _most(top_k)
        scores = [score async for score in self._ascores(iter(pairs), batch_size, parallel)]
        return best(scores, ranked, most)

    def token_count(self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024) -> int:
        """Tokens the model would see: of all pairs together, after truncation, special tokens included."""
        found, size = inputs.pairs(pairs), inputs.positive(batch_size, "batch_size")
        return self._model.get().documents.token_count(found, size)

    def _scores(
        self, pairs: Iterator[tuple[str, str]], batch_size: int, parallel: int | None, names: Names = DOCUMENTS
    ) -> Iterator[float]:
        arguments = inputs.batching(batch_size, parallel)
        return self._model.get().documents.run(pairs, *arguments, names)

    def _ascores(self, pairs: Iterator[tuple[str, str]], batch_size: int, parallel: int | None) -> AsyncIterator[float]:
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: model.documents, pairs, *arguments)

    # -- the model --------------------------------------------------------------------------------------------------

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models of the registry and custom ones, as fresh dicts with FastEmbed's keys."""
        return [registry.describe(spec, CROSS_ENCODER) for spec in registry.entries(CROSS_ENCODER)]

    @classmethod
    def add_custom_model(
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
        """Make a model known to this process, so that the constructor takes its name.

        What is not given, the repository's own files say: the name is enough for a model with one label. Its files are
        fetched from the hub's main branch, of one commit, and checked against what the hub states of them. None of
        them is executed.

        Args:
            model: its name, like "organisation/model".
            sources: `ModelSource(hf="organisation/repository")`; None: the repository with the model's name.
            model_file: the graph's path in the repository, or "model.safetensors" of a sequence classification
                checkpoint. None: the first usual ONNX graph it has, else "model.safetensors".
            description: shown in lists.
            license: shown in lists.
            size_in_gb: accepted as FastEmbed has it; the size is taken from the files.
            additional_files: further files the graph needs; "<model_file>_data" and the like are found without.
            label: the class that means "relevant"; needed where the model has several.
            activation: from logits to score; "softmax" needs a `label`; "auto": as the model's folder says.
            modules: whether the graph ends at the encoder, and sentence-transformers modules (Pooling, Dense,
                LayerNorm) make the score. None: if the repository's modules.json lists any after the transformer.
            max_length: tokens a pair may have; None: what the files say.

        Raises:
            ValueError: the name is taken, or a name, path or option is malformed.
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
    """(query, text) of each document. `name` is what errors call the documents."""
    return [(query, text_of(document, field, f"{name}[{n}]")) for n, document in enumerate(documents)]


def _most(top_k: int | None) -> int | None:
    return None if top_k is None else inputs.positive(top_k, "top_k")
