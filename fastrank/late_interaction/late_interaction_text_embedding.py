"""Token embeddings for late interaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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

if TYPE_CHECKING:
    from fastrank.late_interaction.explanation import Explanation


class LateInteractionTextEmbedding(PublicModel):
    """Token embeddings: one vector per token. Names, order and defaults are FastEmbed's.

    >>> from fastrank import LateInteractionTextEmbedding
    >>> model = LateInteractionTextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    >>> [vectors.shape for vectors in model.embed(["first text", "a longer second text"])]
    [(4, 384), (6, 384)]
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
        """Token embeddings of documents.

        Special tokens have embeddings too; tokens on the model's skiplist (mostly punctuation) have none. Arguments and
        errors are those of `TextEmbedding.embed`, as is laziness.

        Returns:
            An iterator of float32 arrays of shape (tokens, dim), one per text, in order.
        """
        return self._documents(inputs.texts(documents), batch_size, parallel)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Floats]:
        """Token embeddings of passages: the same as `embed`."""
        return self._documents(inputs.texts(texts, "texts"), batch_size, parallel)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Floats]:
        """Token embeddings of queries, those of expansion tokens included; otherwise as `embed`."""
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return self._model.get().queries.run(*arguments)

    def aembed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[Floats]:
        """`embed` for asyncio; see `TextEmbedding.aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: model.documents, *arguments)

    def aquery_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[Floats]:
        """`query_embed` for asyncio; see `TextEmbedding.aembed`."""
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
        """Total number of tokens of all texts: after truncation, special tokens included.

        Args:
            texts: one text, or an iterable of texts.
            batch_size: number of texts tokenized at once.
            is_doc: whether the texts are documents; if not, queries.
            include_extension: whether prefix and expansion tokens count.
        """
        arguments = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        pipeline = self._model.get().documents if is_doc else self._model.get().queries
        if not include_extension and isinstance(pipeline.tokenizer, LateInteractionTokenizer):
            pipeline = replace(pipeline, tokenizer=pipeline.tokenizer.plain())
        return pipeline.token_count(*arguments)

    # -- scores -----------------------------------------------------------------------------------------------------

    def rerank(
        self, query: str, documents: Iterable[str], batch_size: int = 64, parallel: int | None = None
    ) -> Iterator[float]:
        """MaxSim of the query and each document, in the order of the documents (`rank` sorts them).

        Lazy, as `embed`. For embeddings you already have, use `fastrank.maxsim`.

        Args:
            query: one text.
            documents: texts.
            batch_size: maximum number of documents per batch, as in `embed`.
            parallel: as in `embed`.

        Returns:
            An iterator of Python floats. With L2-normalized embeddings a score is at most the number of query tokens.

        Raises:
            TypeError: at the call, if the query is not a string, or `documents` is a string or not iterable; while
                iterating, if a document is not a string. Scores of earlier documents are delivered first.
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
        """The documents, best first; ties keep the order of the documents.

        Args:
            query: one text.
            documents: texts, or mappings with the text under `field`.
            top_k: maximum number of results. None: all.
            batch_size: as in `rerank`.
            parallel: as in `rerank`.
            field: the key of a mapping's text.

        Raises:
            TypeError: as in `rerank`, or a mapping has no text under `field`.
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

    def explain(self, query: str, document: str) -> Explanation:
        """Which token of a document each token of a query meets best: what `rerank` adds up.

        >>> explanation = model.explain("capital of France", "Paris is its capital.")
        >>> print(explanation.text())
        >>> Path("heat.svg").write_text(explanation.svg())

        Args:
            query: one text.
            document: one text.

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
        asked, read = next(self.query_embed(query)), next(self.embed(document))
        return explanation.Explanation(
            query,
            document,
            explanation.tokens(model.queries, model.settings, query, query=True, count=len(asked)),
            explanation.tokens(model.documents, model.settings, document, query=False, count=len(read)),
            asked @ read.T,
        )

    def _documents(self, texts: Iterator[str], batch_size: int, parallel: int | None) -> Iterator[Floats]:
        arguments = inputs.batching(batch_size, parallel)
        return self._model.get().documents.run(texts, *arguments)

    def _scores(self, query: str, documents: Iterator[Floats]) -> Iterator[float]:
        query_vectors = next(self.query_embed(query))
        for vectors in documents:
            yield float(maxsim(query_vectors, [vectors])[0])

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
