"""Sparse vectors for texts: BM25 and learned models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastrank import inputs
from fastrank.bm25 import BM25
from fastrank.engine.loaded import Lazy
from fastrank.engine.model import PublicModel
from fastrank.engine.options import Device, OnnxProvider, Options
from fastrank.models import registry
from fastrank.models.custom import custom_spec
from fastrank.models.spec import SPARSE_EMBEDDING, ModelSource, SparseTask
from fastrank.sparse.bm25_encoder import BM25Encoder
from fastrank.sparse.embedding import SparseEmbedding
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
}


class SparseTextEmbedding(PublicModel):
    """Sparse vectors for texts, with FastEmbed's names, order and defaults.

    >>> from fastrank import SparseTextEmbedding
    >>> model = SparseTextEmbedding("Qdrant/bm25")
    >>> next(model.embed("hello world")).as_dict()
    {613153351: 1.6832..., 74040069: 1.6832...}

    BM25 needs no files and no connection; ids and values are FastEmbed's. The store applies the IDF (in Qdrant:
    `modifier=models.Modifier.IDF`); for stores that have none, `idf=True` and `fit` put it into document vectors.

    Args:
        model_name: a name or alias of the registry, in any case (see `list_supported_models`), one made known by
            `add_custom_model`, or any name for the model of the SPLADE family in `specific_model_path`.
        cache_dir: where models are kept; None: FASTRANK_CACHE, else the user's cache folder.
        threads: processors to use; None: those this process may use.
        providers: onnxruntime execution providers, used as given.
        cuda: `Device.AUTO` takes CUDA if this onnxruntime has it, True or `Device.CUDA` insists.
        device_ids: GPUs to use, one session each.
        lazy_load: find, fetch and load the model at the first use instead of now.
        specific_model_path: a folder with the model, used as it is.
        local_files_only: open no connection.
        variant: which of the model's variants to use.
        max_length: tokens a text may have, special ones included; None: the model's own limit. BM25 has none.
        device_id: one GPU; the same as `device_ids=[device_id]`.
        enable_cpu_mem_arena: onnxruntime's memory arena on the CPU.
        precision: "fp32", "fp16" (for GPUs), "int8" or "int8-fast" (for CPUs), the latter three made of a checkpoint
            (README "Precision"); "auto": that of the model's files.
        verify: hash the model's files before they are loaded, not only when they are fetched.
        special_tokens_in_text: False: "[SEP]" in a text is read as these letters, not as the special token.
        language: BM25: of stemmer and stop words; one of `fastrank.bm25.LANGUAGES`, by default "english".
        k: BM25: term-frequency saturation (k1); 1.2.
        b: BM25: length normalization, 0 none to 1 full; 0.75.
        avg_len: BM25: words of an average document; 256. "auto": what `fit` finds.
        token_max_length: BM25: characters a word may have, else it is left out; 40.
        disable_stemmer: BM25: no stemmer and, as in FastEmbed, no stop words unless given.
        stemmer: BM25: an object with `stem_word(word) -> str`, instead of the language's.
        stopwords: BM25: words to leave out, instead of the language's.
        analyzer: BM25: None: FastEmbed's; "unicode": words keep combining marks (Tamil, Hindi, decomposed text);
            "bigram": pairs of characters where a script has no spaces (Chinese, Japanese, Thai); "unigram+bigram":
            single characters too; "code": identifiers whole and in parts; or a function from a text to its terms.
        idf: BM25: multiply document values by the IDF of the corpus given to `fit`.
        strip_accents: BM25: é -> e, ß -> ss; needs an analyzer by name.
        dimensions: BM25: take ids modulo this, for stores with a largest index (pgvector's sparsevec: 1_000_000_000).
        alpha: BM42: the exponent of attention; 0.5.

    Raises:
        TypeError: an option that this model does not have.
        ValueError: an option is out of range, or the language unknown; the message lists the languages.
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
    ) -> None:
        given = {
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
        self.model_name = spec.name
        self.cache_dir = cache_dir
        self.threads = None if threads is None else inputs.positive(threads, "threads")
        task = spec.task(SPARSE_EMBEDDING, SparseTask)
        own: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if foreign := set(own) - OPTIONS[task.kind]:
            raise TypeError(f"{spec.name} has no option {', '.join(sorted(foreign))}")
        self._encoder = BM25Encoder(BM25(**own)) if task.kind == "bm25" else None
        self._model: Lazy[SparseModel]
        if self._encoder is not None:
            self._model = Lazy(partial(bm25_model, self._encoder))
        else:
            from fastrank.engine.loading import Request, checked  # the machinery of models, which BM25 does not need
            from fastrank.sparse import loading

            request = Request(
                spec,
                Lookup(cache_dir, specific_model_path, local_files_only, variant, verify),
                Options(self.threads, providers, cuda, device_ids, device_id, enable_cpu_mem_arena, precision),
                None if max_length is None else inputs.positive(max_length, "max_length"),
                special_tokens_in_text,
            )
            self._model = Lazy(partial(loading.load, checked(request), own))
        if not lazy_load:
            self._model.get()

    # -- embedding --------------------------------------------------------------------------------------------------

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[SparseEmbedding]:
        """Vectors of documents.

        Lazy: texts are read ahead by at most 256 a worker (4,096 for a GPU; or `batch_size`, if that is more).

        Args:
            documents: one text, or an iterable of texts.
            batch_size: the most texts that run together.
            parallel: None: what suits this machine; 0: one worker a processor; n: so many. For BM25 workers are
                processes (so scripts need `if __name__ == "__main__":`), for models threads.

        Returns:
            An iterator of `SparseEmbedding`, one a text, in order.

        Raises:
            TypeError: at the call, if `documents` is no string and no iterable; when it is reached, if an item is no
                string. What came before it is delivered first.
            ValueError: `batch_size` or `parallel` is out of range, or `fit` is needed first.
            OutputError: the model returned NaN or infinity; the message names the text.
        """
        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return self._model.get().documents.run(*arguments)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[SparseEmbedding]:
        """Vectors of queries. BM25, BM42 and inference-free models run nothing for them."""
        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return self._model.get().queries.run(*arguments)

    def passage_embed(
        self, texts: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[SparseEmbedding]:
        """Vectors of passages: the same as `embed`, but for a prompt of passages that the model's folder has."""
        arguments = inputs.texts(texts, "texts"), *inputs.batching(batch_size, parallel)
        return self._model.get().passages.run(*arguments)

    def aembed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[SparseEmbedding]:
        """`embed` for asyncio: an async iterator that never blocks the loop but to read `documents`.

        The texts run on the threads that `embed` uses, together with those of other tasks. Cancelling the task, or
        closing the iterator, stops what has not begun.
        """
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(documents), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: model.documents, *arguments)

    def aquery_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> AsyncIterator[SparseEmbedding]:
        """`query_embed` for asyncio, as `aembed`."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        arguments = inputs.texts(query, "query"), *inputs.batching(batch_size, parallel)
        return asynchronous.run(self._model, lambda model: model.queries, *arguments)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024) -> int:
        """Tokens of all texts together: after truncation, special ones included; for BM25 words, stop words too."""
        found, size = inputs.texts(texts, "texts"), inputs.positive(batch_size, "batch_size")
        return self._model.get().documents.token_count(found, size)

    def fit(self, corpus: Iterable[str]) -> SparseTextEmbedding:
        """BM25: take the average length and the IDF from a corpus, for `avg_len="auto"` and `idf=True`.

        Returns:
            The model itself.

        Raises:
            TypeError: this model has nothing to fit, or the corpus is no iterable of strings.
            ValueError: the corpus has no words.
        """
        self._statistics().fit(corpus)
        return self

    def partial_fit(self, corpus: str | Iterable[str]) -> SparseTextEmbedding:
        """BM25: extend what `fit` found by more documents, or begin with these.

        Returns:
            The model itself.

        Raises:
            TypeError: this model has nothing to fit, or an item is not a string; nothing is added.
        """
        self._statistics().partial_fit(corpus)
        return self

    def save_statistics(self, path: str | Path) -> None:
        """BM25: write what `fit` found to one file, with the settings it belongs to.

        Raises:
            TypeError: this model has no statistics.
        """
        self._statistics().save(path)

    def load_statistics(self, path: str | Path) -> SparseTextEmbedding:
        """BM25: take what `save_statistics` wrote, in place of an earlier `fit`.

        Returns:
            The model itself.

        Raises:
            FileNotFoundError: there is no such file.
            TypeError: this model has no statistics.
            ModelLoadError: the file is damaged, or holds something else.
            ValueError: the statistics are of other terms: language, analyzer or the like differ.
        """
        self._statistics().load_statistics(path)
        return self

    def _statistics(self) -> BM25:
        if self._encoder is None:
            raise TypeError(f"{self.model_name} takes no statistics from a corpus; only BM25 does")
        return self._encoder.bm25

    def __reduce__(self) -> tuple[Any, ...]:
        return *super().__reduce__(), None if self._encoder is None else self._encoder.bm25

    def __setstate__(self, bm25: BM25) -> None:
        """Go on with the statistics that were pickled."""
        self._encoder = BM25Encoder(bm25)
        self._model = Lazy(partial(bm25_model, self._encoder))

    # -- the model --------------------------------------------------------------------------------------------------

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The models of the registry and custom ones, as fresh dicts with FastEmbed's keys."""
        return [registry.describe(spec, SPARSE_EMBEDDING) for spec in registry.entries(SPARSE_EMBEDDING)]

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
        vocab_size: int | None = None,
        requires_idf: bool = False,
        activation: Literal["log1p", "log1p-log1p"] | None = None,
        skip_special_tokens: bool = False,
        query_weights: str | None = None,
        output_name: str | None = None,
        max_length: int | None = None,
    ) -> None:
        """Make a model of the SPLADE family known to this process (FastEmbed has no such method here).

        What is not given, the repository's own files say. They are fetched from the hub's main branch, of one commit,
        and checked against what the hub states of them. None of them is executed.

        Args:
            model: its name, like "organisation/model".
            sources: `ModelSource(hf="organisation/repository")`; None: the repository with the model's name.
            model_file: the graph's path, whose output is (texts, tokens, vocabulary); or "model.safetensors" of a
                masked language model. None: the first usual ONNX graph the repository has, else "model.safetensors".
            description: shown in lists.
            license: shown in lists.
            size_in_gb: accepted as FastEmbed has it; the size is taken from the files.
            additional_files: further files the graph needs.
            vocab_size: shown in lists.
            requires_idf: shown in lists: whether the store must apply the IDF.
            activation: "log1p" is SPLADE's; "log1p-log1p" that of OpenSearch's v3 models. None: as the SpladePooling
                in the repository says; "log1p" if it has none.
            skip_special_tokens: whether [CLS] and the like get no weight.
            query_weights: a JSON file of word piece -> weight, for models whose queries run no model ("idf.json").
            output_name: the graph's output to use; None: the first.
            max_length: tokens a text may have; None: what the files say.

        Raises:
            ValueError: the name is taken, or a name or path is malformed.
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
