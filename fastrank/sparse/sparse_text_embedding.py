"""Sparse embeddings: BM25 and learned models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from fastrank import inputs
from fastrank.bm25 import BM25
from fastrank.engine import calls
from fastrank.engine.calls import OverflowMode, TextOptions
from fastrank.engine.loaded import Lazy
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import SPARSE_EMBEDDING, ModelSource, SparseTask
from fastrank.sparse.bm25_encoder import BM25Encoder
from fastrank.sparse.embedding import SparseEmbedding, greatest
from fastrank.sparse.model import SparseModel
from fastrank.sparse.model import bm25 as bm25_model
from fastrank.store.lookup import Lookup

if TYPE_CHECKING:
    from fastrank.bm25.weights import Analyzer, Stemmer

OPTIONS = {
    "bm25": {
        *("language", "k", "b", "avg_len", "token_max_length", "disable_stemmer", "stemmer", "stopwords", "analyzer"),
        *("idf", "strip_accents", "dimensions"),
    },
    "bm42": {"alpha"},
    "minicoil": {"k", "b", "avg_len"},
    "splade": set[str](),
    "token-weights": set[str](),
}


class SparseTextEmbedding(PublicModel):
    """Sparse embeddings: ids and weights of a text's terms. Names, order and defaults are FastEmbed's.

    Examples:
        >>> from fastrank import SparseTextEmbedding
        >>> model = SparseTextEmbedding("Qdrant/bm25")
        >>> next(model.embed("hello world")).as_dict()
        {613153351: 1.6832..., 74040069: 1.6832...}

    BM25 needs no files and no connection; ids and values equal FastEmbed's. The vector store applies the IDF (in
    Qdrant: `modifier=models.Modifier.IDF`); for stores that cannot, `idf=True` and `fit` multiply it into document
    vectors.

    See `TextEmbedding` for the arguments and errors that all models share. An argument marked with a kind of model is
    an error with the others.

    Args:
        max_length: maximum number of tokens per text, special tokens included. None: the model's limit; BM25 has none.
        language: BM25: language of stemmer and stop words, one of `fastrank.bm25.LANGUAGES`. Default: "english".
        k: BM25, MiniCOIL: term-frequency saturation (k1). Default: 1.2.
        b: BM25, MiniCOIL: length normalization, 0 none to 1 full. Default: 0.75.
        avg_len: BM25, MiniCOIL: words in an average document. Default: 256 (MiniCOIL 150). BM25 also takes "auto": the
            average of the corpus given to `fit`.
        token_max_length: BM25: longer words, in characters, are left out. Default: 40.
        disable_stemmer: BM25: no stemmer and, as in FastEmbed, no stop words unless `stopwords` is given.
        stemmer: BM25: an object with `stem_word(word) -> str`, instead of the language's stemmer.
        stopwords: BM25: words to leave out, instead of the language's stop words.
        analyzer: BM25: from text to terms. None: FastEmbed's. "unicode": words keep combining marks (Tamil, Hindi,
            decomposed text). "bigram": pairs of characters where a script has no spaces (Chinese, Japanese, Thai).
            "unigram+bigram": single characters too. "code": identifiers, whole and in parts. "jieba" (Chinese),
            "fugashi" (Japanese), "pythainlp" (Thai), "kiwipiepy" (Korean): the words of this package, an extra each. Or
            a function from a text to its terms.
        idf: BM25: multiply document values by the IDF in the corpus given to `fit`.
        strip_accents: BM25: é -> e, ß -> ss; only with a named analyzer.
        dimensions: BM25: take ids modulo this number, for stores that limit them (pgvector's sparsevec: 1_000_000_000).
        alpha: BM42: exponent of the attention weights. Default: 0.5.
        overflow: what is done with texts of more than `max_length` tokens; BM25 reads all. "truncate": their beginning
            is read; "error": TextTooLongError; "chunk": all of it is read, in chunks, and a term's weight is the
            greatest that it has in one. With `chunk_size` and `chunk_overlap` as in `TextEmbedding`.

    Raises:
        TypeError: an argument that this model does not have.
        ValueError: an argument is out of range, or the language unknown; the message lists the languages.
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
        language: str | None = None,
        k: float | None = None,
        b: float | None = None,
        avg_len: float | Literal["auto"] | None = None,
        token_max_length: int | None = None,
        disable_stemmer: bool | None = None,
        stemmer: Stemmer | None = None,
        stopwords: Iterable[str] | None = None,
        analyzer: Analyzer = None,
        idf: bool | None = None,
        strip_accents: bool | None = None,
        dimensions: int | None = None,
        alpha: float | None = None,
        overflow: OverflowMode = "truncate",
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
    ) -> None:
        arguments = {
            "language": language,
            "k": k,
            "b": b,
            "avg_len": avg_len,
            "token_max_length": token_max_length,
            "disable_stemmer": disable_stemmer,
            "stemmer": stemmer,
            "stopwords": stopwords,
            "analyzer": analyzer,
            "idf": idf,
            "strip_accents": strip_accents,
            "dimensions": dimensions,
            "alpha": alpha,
        }
        if specific_model_path is None:
            spec = registry.find(model_name, SPARSE_EMBEDDING)
        else:
            spec = registry.find_or_own(model_name, SPARSE_EMBEDDING, SparseTask("splade", activation=None))
        self._overflow = calls.overflow(
            {"overflow": overflow, "chunk_size": chunk_size, "chunk_overlap": chunk_overlap}, join=greatest
        )
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        task = spec.task(SPARSE_EMBEDDING, SparseTask)
        options: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
        if foreign := set(options) - OPTIONS[task.kind]:
            raise TypeError(f"{spec.name} has no option {', '.join(sorted(foreign))}")
        self._encoder = BM25Encoder(BM25(**options)) if task.kind == "bm25" else None
        self._model: Lazy[SparseModel]
        if self._encoder is not None:
            self._model = Lazy(partial(bm25_model, self._encoder))
        else:
            from fastrank.engine.loading import Request, checked  # BM25 loads no model
            from fastrank.sparse import loading

            request = Request(
                spec,
                Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
                Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
                None if max_length is None else inputs.positive(max_length, "max_length"),
                special_tokens_in_text,
            )
            self._model = Lazy(partial(loading.load, checked(request), options))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> Iterator[SparseEmbedding]:
        """Vectors of documents.

        Lazy: at most 256 texts per worker, or 64 a thread, are read ahead (4,096 on a GPU; `batch_size` if larger).

        Args:
            documents: one text, or an iterable of texts.
            batch_size: maximum number of texts per batch.
            parallel: number of workers: processes for BM25 (scripts then need `if __name__ == "__main__":`), threads
                for models. None: chosen for this machine; 0: one per CPU core.
            options: `overflow`, `chunk_size`, `chunk_overlap`: as in the constructor, for this call. `prompt`: put
                before each text, in place of the model's own; not for models that weigh words one by one.
                `on_truncated`: a function that is called with the position of each text that was cut.
                `show_progress`: draw a progress bar (tqdm).

        Returns:
            An iterator of `SparseEmbedding`, one per text, in order.

        Raises:
            TypeError: at the call, if `documents` is neither a string nor an iterable; while iterating, if an item is
                not a string. Results for earlier items are delivered first.
            ValueError: an argument is out of range, or `fit` must be called first.
            OutputError: the model returned NaN or infinity; the message names the text.
            TextTooLongError: with `overflow="error"`, while iterating.
        """
        call = self._call("embed", options)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        vectors = call.pipeline(self._model.get().documents).run(*arguments)
        return call.shown(vectors, "embed", calls.total(documents))

    def query_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> Iterator[SparseEmbedding]:
        """Vectors of queries. BM25, BM42 and models with `query_weights` run no model for them."""
        call = self._call("query_embed", options)
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        vectors = call.pipeline(self._model.get().queries).run(*arguments)
        return call.shown(vectors, "embed", calls.total(query))

    def passage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> Iterator[SparseEmbedding]:
        """Vectors of passages: the same as `embed`, but for a prompt of passages that the model's folder has."""
        call = self._call("passage_embed", options)
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        vectors = call.pipeline(self._model.get().passages).run(*arguments)
        return call.shown(vectors, "embed", calls.total(texts))

    def aembed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> AsyncIterator[SparseEmbedding]:
        """`embed` for asyncio; see `TextEmbedding.aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        call = self._call("aembed", options)
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        vectors = asynchronous.run(self._model, lambda model: call.pipeline(model.documents), *arguments)
        return asynchronous.shown(vectors, "embed", calls.total(documents)) if call.show_progress else vectors

    def aquery_embed(
        self,
        query: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> AsyncIterator[SparseEmbedding]:
        """`query_embed` for asyncio; see `TextEmbedding.aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        call = self._call("aquery_embed", options)
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        vectors = asynchronous.run(self._model, lambda model: call.pipeline(model.queries), *arguments)
        return asynchronous.shown(vectors, "embed", calls.total(query)) if call.show_progress else vectors

    def apassage_embed(
        self,
        texts: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **options: Unpack[TextOptions],
    ) -> AsyncIterator[SparseEmbedding]:
        """`passage_embed` for asyncio; see `TextEmbedding.aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        call = self._call("apassage_embed", options)
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        vectors = asynchronous.run(self._model, lambda model: call.pipeline(model.passages), *arguments)
        return asynchronous.shown(vectors, "embed", calls.total(texts)) if call.show_progress else vectors

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
        """Number of tokens, special tokens included; for BM25 words, stop words included. See `TextEmbedding`'s."""
        arguments = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        return calls.counted(self._model.get().documents.token_counts(*arguments, truncate=truncate), each=each)

    def _call(self, method: str, options: Mapping[str, Any]) -> calls.Call:
        return calls.call(method, options, self._overflow, greatest, set())

    def fit(self, corpus: Iterable[str]) -> SparseTextEmbedding:
        """BM25: compute average length and IDF of a corpus, for `avg_len="auto"` and `idf=True`.

        Returns:
            The model itself.

        Raises:
            TypeError: the model is not BM25, or the corpus is not an iterable of strings.
            ValueError: the corpus has no words.
        """
        self._statistics().fit(corpus)
        return self

    def partial_fit(self, corpus: str | Iterable[str]) -> SparseTextEmbedding:
        """BM25: add documents to the statistics of `fit`, or start with these.

        Returns:
            The model itself.

        Raises:
            TypeError: the model is not BM25, or an item is not a string; then no item is added.
        """
        self._statistics().partial_fit(corpus)
        return self

    def save_statistics(self, path: str | Path) -> None:
        """BM25: write the statistics of `fit` to one file, with the settings they belong to.

        Raises:
            TypeError: the model is not BM25.
        """
        self._statistics().save(path)

    def load_statistics(self, path: str | Path) -> SparseTextEmbedding:
        """BM25: read the file of `save_statistics`, in place of `fit`.

        Returns:
            The model itself.

        Raises:
            FileNotFoundError: there is no such file.
            TypeError: the model is not BM25.
            ModelLoadError: the file is damaged, or is not such a file.
            ValueError: the statistics were made with other settings, such as another language or analyzer.
        """
        self._statistics().load_statistics(path)
        return self

    def _statistics(self) -> BM25:
        if self._encoder is None:
            raise TypeError(f"{self.model_name} has no corpus statistics; only BM25 has")
        return self._encoder.bm25

    def __reduce__(self) -> tuple[Any, ...]:
        return *super().__reduce__(), None if self._encoder is None else self._encoder.bm25

    def __setstate__(self, bm25: BM25) -> None:
        """Keep the statistics that were pickled."""
        self._encoder = BM25Encoder(bm25)
        self._model = Lazy(partial(bm25_model, self._encoder))

    # -- the model --------------------------------------------------------------------------------------------------

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Registry entries and custom models, as dicts with FastEmbed's keys. Changing them has no effect."""
        return [registry.describe(spec, SPARSE_EMBEDDING) for spec in registry.entries(SPARSE_EMBEDDING)]

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
        vocab_size: int | None = None,
        requires_idf: bool = False,
        activation: Literal["log1p", "log1p-log1p"] | None = None,
        skip_special_tokens: bool = False,
        query_weights: str | None = None,
        output_name: str | None = None,
        max_length: int | None = None,
    ) -> None:
        """Register a model of the SPLADE family in this process (FastEmbed has no such method here).

        See `TextEmbedding.add_custom_model` for where files and settings come from, and for the arguments and errors
        that all models share.

        Args:
            model_file: path of an ONNX graph whose output is (texts, tokens, vocabulary), or "model.safetensors" of a
                masked language model. None: the first usual ONNX path that exists, else "model.safetensors".
            vocab_size: shown by `list_supported_models`.
            requires_idf: shown by `list_supported_models`: whether the store must apply the IDF.
            activation: "log1p" is SPLADE's; "log1p-log1p" that of OpenSearch's v3 models. None: that of the
                repository's SpladePooling; without one, "log1p".
            skip_special_tokens: whether [CLS] and the like get no weight.
            query_weights: a JSON file of token -> weight ("idf.json"), for models that encode queries by table lookup.
        """
        del size_in_gb
        if activation not in (None, "log1p", "log1p-log1p"):
            raise ValueError(f"activation must be 'log1p' or 'log1p-log1p', not {activation!r}")
        settings = SparseTask(
            "splade",
            requires_idf=requires_idf,
            vocab_size=vocab_size,
            activation=activation,
            skip_special_tokens=skip_special_tokens,
            query_weights=query_weights,
            output=output_name,
        )
        spec = custom_spec(
            model,
            SPARSE_EMBEDDING,
            settings,
            sources,
            model_file=model_file,
            additional_files=(*(additional_files or ()), *([query_weights] if query_weights else [])),
            description=description,
            license=license,
            max_length=max_length,
        )
        registry.add(spec, SPARSE_EMBEDDING)
