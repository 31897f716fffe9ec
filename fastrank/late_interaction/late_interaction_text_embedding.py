"""Token embeddings for late interaction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from fastrank import inputs
from fastrank.engine import calls, vectors
from fastrank.engine.calls import OutputDtype, OverflowMode, TextOptions, VectorOptions
from fastrank.engine.loaded import Lazy
from fastrank.engine.loading import Request, checked
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.engine.overflow import DEFAULT, ChunkVectors, Join
from fastrank.engine.pooling import Floats
from fastrank.engine.vectors import Dimensions, VectorCall
from fastrank.late_interaction import heads, loading
from fastrank.late_interaction.loading import LateInteractionModel
from fastrank.late_interaction.tokens import LateInteractionTokenizer
from fastrank.maxsim import maxsim
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import LATE_INTERACTION, NORMALIZED, LateInteractionTask, ModelSource
from fastrank.rerank.ranking import Document, RankedDocument, best, checked_top_k, listed, texts_of
from fastrank.store.lookup import Lookup

if TYPE_CHECKING:
    from fastrank.late_interaction.explanation import Explanation


class LateInteractionTextEmbedding(PublicModel):
    """Token embeddings: one vector per token. Names, order and defaults are FastEmbed's.

    Examples:
        >>> from fastrank import LateInteractionTextEmbedding
        >>> model = LateInteractionTextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
        >>> for vectors in model.embed(["first text", "a longer second text"]):
        ...     print(vectors.shape)
        (4, 384)
        (6, 384)
        >>> list(model.rerank("capital of France", ["Paris is its capital.", "Berlin is not."]))
        [4.0..., 1.5...]

    Query and document are compared by MaxSim: the highest similarity of each query token with any document token,
    summed over the query's tokens. Khattab and Zaharia, 2020. Threads may share an instance.

    The settings of a model that has no entry in the registry come from its own folder, as PyLate, ColBERT or
    sentence-transformers' MultiVectorEncoder save it: modules, prompts, prefix tokens, lengths, query expansion,
    skiplist, token pooling. Every field of its files is applied or has no effect, or the model is refused
    (docs/folders.md lists them). A model in the registry always has the registry's settings.

    See `TextEmbedding` for the arguments and errors that all models share.

    Args:
        max_length: maximum number of tokens per document, prefix token and special tokens included. None: the model's
            limit.
        truncate_dim: keep so many numbers of a token embedding, as in `TextEmbedding`.
        output_dtype: the type of their numbers, as in `TextEmbedding`. Scores are computed in float32.
        overflow: what is done with texts of more than `max_length` tokens. "truncate": their beginning is read;
            "error": TextTooLongError; "chunk": all of it is read, in chunks. `embed` then returns the embeddings of all
            chunks' tokens, and the score of a document in `rerank` is that of its best chunk.
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
        truncate_dim: int | None = None,
        output_dtype: OutputDtype = "float32",
        ranges: Any = None,
        overflow: OverflowMode = "truncate",
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
    ) -> None:
        if specific_model_path is None:
            spec = registry.find(model_name, LATE_INTERACTION)
        else:
            spec = registry.find_or_own(model_name, LATE_INTERACTION, LateInteractionTask())
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        task = spec.task(LATE_INTERACTION, LateInteractionTask)
        shortened = None if truncate_dim is None else inputs.positive(truncate_dim, "truncate_dim")
        self._dim = vectors.size(task.dim or None, shortened)
        self._form = vectors.form({"output_dtype": output_dtype, "ranges": ranges}, vectors.PLAIN, self._dim)
        self._overflow = calls.overflow(
            {"overflow": overflow, "chunk_size": chunk_size, "chunk_overlap": chunk_overlap}, join=heads.concatenated
        )
        self._dimensions = Dimensions(spec.name, task.matryoshka)
        self._dimensions.check(shortened, task.dim)
        request = Request(
            spec,
            Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
            Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
            None if max_length is None else inputs.positive(max_length, "max_length"),
            special_tokens_in_text,
        )
        request = checked(request)
        self._settings = partial(loading.settings, request, truncate_dim=shortened)
        self._model: Lazy[LateInteractionModel] = Lazy(partial(loading.load, request, shortened))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[Floats]:
        """Token embeddings of documents.

        Special tokens have embeddings too; tokens on the model's skiplist (mostly punctuation) have none. Arguments and
        errors are those of `TextEmbedding.embed`, as is laziness.

        Returns:
            An iterator of arrays of shape (tokens, dim), one per text, in order: float32, unless `output_dtype` says
            otherwise.
        """
        asked = self._asked("embed", options, calls.total(documents))
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: model.documents, *arguments)

    def passage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[Floats]:
        """Token embeddings of passages: the same as `embed`."""
        asked = self._asked("passage_embed", options, calls.total(texts))
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: model.documents, *arguments)

    def query_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[Floats]:
        """Token embeddings of queries, those of expansion tokens included; otherwise as `embed`."""
        asked = self._asked("query_embed", options, calls.total(query))
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: model.queries, *arguments)

    def aembed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[Floats]:
        """`embed` for asyncio; see `TextEmbedding.aembed`."""
        asked = self._asked("aembed", options, calls.total(documents))
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.arun(lambda model: model.documents, *arguments)

    def aquery_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[Floats]:
        """`query_embed` for asyncio; see `TextEmbedding.aembed`."""
        asked = self._asked("aquery_embed", options, calls.total(query))
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asked.arun(lambda model: model.queries, *arguments)

    def embed_chunks(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> Iterator[ChunkVectors]:
        """Token embeddings of the chunks of documents, with the places of these; see `TextEmbedding.embed_chunks`.

        Returns:
            An iterator of `ChunkVectors`, one per text, in order: a list of arrays (tokens, dim), and spans in
            characters.
        """
        asked = self._asked("embed_chunks", calls.in_chunks(options), calls.total(documents), heads.listed)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.run(lambda model: model.documents, *arguments)

    def aembed_chunks(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[VectorOptions],
    ) -> AsyncIterator[ChunkVectors]:
        """`embed_chunks` for asyncio; see `TextEmbedding.aembed`."""
        asked = self._asked("aembed_chunks", calls.in_chunks(options), calls.total(documents), heads.listed)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asked.arun(lambda model: model.documents, *arguments)

    def calibrate(self, texts: Iterable[str], truncate_dim: int | None = None) -> Floats:
        """The ranges of the token embeddings of a sample, for `output_dtype="int8"` and "uint8": float32 (2, dim).

        See `TextEmbedding.calibrate`.
        """
        from fastrank.postprocess import quantization

        size = None if truncate_dim is None else inputs.positive(truncate_dim, "truncate_dim")
        asked = self._asked("calibrate", {}, None)._replace(form=vectors.Form(size))
        given = inputs.documents(texts, "texts")
        return quantization.calibrate(asked.run(lambda model: model.documents, given, 256, None))

    @overload
    def token_count(
        self,
        texts: str | Iterable[str],
        batch_size: int = ...,
        is_doc: bool = ...,
        include_extension: bool = ...,
        *,
        truncate: bool = ...,
        each: Literal[False] = ...,
    ) -> int: ...

    @overload
    def token_count(
        self,
        texts: str | Iterable[str],
        batch_size: int = ...,
        is_doc: bool = ...,
        include_extension: bool = ...,
        *,
        truncate: bool = ...,
        each: Literal[True],
    ) -> list[int]: ...

    def token_count(
        self,
        texts: str | Iterable[str],
        batch_size: int = 1024,
        is_doc: bool = True,
        include_extension: bool = False,
        *,
        truncate: bool = True,
        each: bool = False,
    ) -> int | list[int]:
        """Number of tokens, special tokens included.

        Args:
            texts: one text, or an iterable of texts.
            batch_size: number of texts tokenized at once.
            is_doc: whether the texts are documents; if not, queries.
            include_extension: whether prefix and expansion tokens count.
            truncate: count what is read of long texts; False: all of them.
            each: return a list with the number of each text; False: the total.
        """
        arguments = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        pipeline = self._model.get().documents if is_doc else self._model.get().queries
        if not include_extension and isinstance(pipeline.tokenizer, LateInteractionTokenizer):
            pipeline = replace(pipeline, tokenizer=pipeline.tokenizer.plain())
        return calls.counted(pipeline.token_counts(*arguments, truncate=truncate), each=each)

    # -- scores -----------------------------------------------------------------------------------------------------

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 64,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> Iterator[float]:
        """MaxSim of the query and each document, in the order of the documents (`rank` sorts them).

        Lazy, as `embed`. For embeddings you already have, use `fastrank.maxsim`.

        Args:
            query: one text.
            documents: texts.
            batch_size: maximum number of documents per batch, as in `embed`.
            parallel: as in `embed`.
            options: as in `TextCrossEncoder.rerank`; `overflow` is about documents, `prompt` about the query.

        Returns:
            An iterator of Python floats. With L2-normalized embeddings a score is at most the number of query tokens.

        Raises:
            TypeError: at the call, if the query is not a string, or `documents` is a string or not iterable, or an
                option is unknown; while iterating, if a document is not a string. Scores of earlier documents are
                delivered first.
            ValueError: an argument is out of range.
            OutputError: the model returned NaN or infinity; the message names the document.
            TextTooLongError: with `overflow="error"`, while iterating.
        """
        call = self._scoring("rerank", options)
        query, given = inputs.text(query, "query"), inputs.documents(documents)
        arguments = inputs.batching(batch_size, parallel)
        embeddings = self._model.get().documents.asked(None, call.overflow).run(given, *arguments)
        return call.shown(self._scores(query, call.prompt, embeddings), "rerank", calls.total(documents))

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
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
            options: as in `rerank`.

        Raises:
            TypeError: as in `rerank`, or a mapping has no text under `field`.
        """
        most = checked_top_k(top_k)
        ranked = listed(documents)
        texts = texts_of(ranked, field)
        return best(list(self.rerank(query, texts, batch_size, parallel, **options)), ranked, most)

    def arerank(
        self,
        query: str,
        documents: Iterable[str],
        batch_size: int = 64,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> AsyncIterator[float]:
        """`rerank` for asyncio, as `aembed`."""
        call = self._scoring("arerank", options)
        query, texts = inputs.text(query, "query"), inputs.documents(documents)
        size, workers = inputs.batching(batch_size, parallel)
        return self._ascores(query, texts, size, workers, call, calls.total(documents))

    async def arank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        batch_size: int = 64,
        parallel: int | None = None,
        *,
        field: str = "text",
        **options: Unpack[TextOptions],
    ) -> list[RankedDocument]:
        """`rank` for asyncio; cancelling the task stops what has not begun."""
        most = checked_top_k(top_k)
        ranked = listed(documents)
        texts = texts_of(ranked, field)
        scores = [score async for score in self.arerank(query, texts, batch_size, parallel, **options)]
        return best(scores, ranked, most)

    def explain(self, query: str, document: str, *, prompt: str | None = None) -> Explanation:
        """Which token of a document each token of a query meets best: what `rerank` adds up.

        Examples:
            >>> explanation = model.explain("capital of France", "Paris is its capital.")
            >>> print(explanation.text())
            >>> Path("heat.svg").write_text(explanation.svg())

        Args:
            query: one text.
            document: one text; of one that is too long the beginning is explained, whatever `overflow` is.
            prompt: put before the query; None: the model's own.

        Returns:
            An `Explanation`: tokens with their places in the texts, similarities of all pairs (float32, query tokens x
            document tokens), the best match of each token of the query, the score; `as_dict()` for JSON, `text()` for a
            terminal, `svg()` and `html()` for a heat map.

        Raises:
            TypeError: the query or the document is not a string.
            ValueError: the model pools embeddings, so that none is of one token.
        """
        from fastrank.late_interaction import explanation

        query, document = inputs.text(query, "query"), inputs.text(document, "document")
        model = self._model.get()
        queries = model.queries.asked(None if prompt is None else inputs.text(prompt, "prompt"), DEFAULT)
        asked = next(queries.run(iter([query]), 1, None))  # float32, whatever `output_dtype` is
        read = next(model.documents.run(iter([document]), 1, None))
        return explanation.Explanation(
            query,
            document,
            explanation.tokens(queries, model.settings, query, query=True, count=len(asked)),
            explanation.tokens(model.documents, model.settings, document, query=False, count=len(read)),
            asked @ read.T,
        )

    def _asked(
        self, method: str, options: Mapping[str, Any], total: int | None, join: Join = heads.concatenated
    ) -> VectorCall:
        """A call for embeddings, checked."""
        call = calls.call(method, options, self._overflow, join, vectors.OPTIONS)
        size = self._model.get().settings.dim if self._model.is_loaded else self._dim
        form = vectors.form(options, self._form, size)
        self._dimensions.check(form.dim, size)
        return VectorCall(self._model, call, form, total)

    def _scoring(self, method: str, options: Mapping[str, Any]) -> calls.Call:
        """A call for scores, checked."""
        return calls.call(method, options, self._overflow, heads.listed, set())

    def _scores(self, query: str, prompt: str | None, documents: Iterator[Any]) -> Iterator[float]:
        query_vectors = next(self._model.get().queries.asked(prompt, DEFAULT).run(iter([query]), 1, None))
        for embeddings in documents:
            yield _score(query_vectors, embeddings)

    async def _ascores(
        self,
        query: str,
        texts: Iterator[str],
        batch_size: int,
        workers: int | None,
        call: calls.Call,
        total: int | None,
    ) -> AsyncGenerator[float, None]:
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        queries = asynchronous.run(
            self._model, lambda model: model.queries.asked(call.prompt, DEFAULT), iter([query]), 1, None
        )
        asked = [embeddings async for embeddings in queries][0]  # noqa: RUF015 - there is no anext for all
        documents = asynchronous.run(
            self._model, lambda model: model.documents.asked(None, call.overflow), texts, batch_size, workers
        )
        scores = asynchronous.mapped(documents, lambda each: _score(asked, each))
        async with aclosing(asynchronous.shown(scores, "rerank", total) if call.show_progress else scores) as shown:
            async for score in shown:
                yield score

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def embedding_size(self) -> int:
        """The size of a token embedding."""
        return self._dim or self._settings().dim

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """The size of a model's token embeddings, without loading it.

        Raises:
            ModelNotFoundError: there is no such model.
            ValueError: a custom model was added without `dim`.
        """
        spec = registry.find(model_name, LATE_INTERACTION)
        if dim := spec.task(LATE_INTERACTION, LateInteractionTask).dim:
            return dim
        raise ValueError(
            f"{spec.name} was added without dim. Load it and use its embedding_size, or pass dim to add_custom_model"
        )

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Registry entries and custom models, as dicts with FastEmbed's keys. Changing them has no effect."""
        return [registry.describe(spec, LATE_INTERACTION) for spec in registry.entries(LATE_INTERACTION)]

    @classmethod
    def add_custom_model(  # noqa: D417 - the others are documented in TextEmbedding
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
        truncate_dims: Sequence[int] | None = None,
    ) -> None:
        """Register a model in this process, so that the constructor accepts its name.

        The name is enough for a model saved by PyLate or ColBERT. See `TextEmbedding.add_custom_model` for where files
        and settings come from, and for the arguments and errors that all models share.

        Args:
            dim: the size of a token embedding. None: it and all settings below except `max_length` are read from the
                model's folder, as PyLate (modules.json, config_sentence_transformers.json) or ColBERT
                (artifact.metadata) saves it.
            query_prefix_token: a token, or its id, inserted into each query, such as "[Q]". None: none.
            document_prefix_token: the same for documents, such as "[D]".
            prefix_position: number of tokens before the prefix token; 1: after [CLS].
            query_length: query expansion: shorter queries are padded with `mask_token` to this number of tokens. None:
                no expansion.
            mask_token: the expansion token.
            attend_to_expansion_tokens: whether the model attends to expansion tokens.
            query_max_length: maximum number of tokens per query, all tokens included. None: `max_length`.
            max_length: maximum number of tokens per text, all tokens included. None: as the files say.
            skiplist: texts whose first token gets no embedding in documents, such as `string.punctuation`.
            normalize: which embeddings are L2-normalized after the graph.
            projection: whether a checkpoint has Dense layers after the encoder.
            truncate_dims: the sizes of shorter token embeddings that it was trained for (Matryoshka).
        """
        del size_in_gb
        if normalize not in NORMALIZED:
            raise ValueError(f"normalize must be one of {', '.join(map(repr, NORMALIZED))}, not {normalize!r}")
        task = LateInteractionTask(
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
            matryoshka=vectors.trained_for(truncate_dims),
        )
        spec = custom_spec(
            model,
            LATE_INTERACTION,
            task,
            sources,
            model_file=model_file,
            additional_files=tuple(additional_files or ()),
            description=description,
            license=license,
            max_length=max_length,
        )
        registry.add(spec, LATE_INTERACTION)


def _score(query: Floats, document: Any) -> float:
    """MaxSim of a document, or of the best of its chunks."""
    if isinstance(document, ChunkVectors):
        return float(maxsim(query, document.vectors).max())
    return float(maxsim(query, [document])[0])
