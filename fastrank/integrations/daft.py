"""Daft: a provider for its `embed_text`, and an expression for every kind of model (extra `daft`)."""

from __future__ import annotations

from typing import Any

from fastrank.bulk import Embedder
from fastrank.integrations._host import required

with required("daft"):
    import daft
    from daft.ai.protocols import TextEmbedder, TextEmbedderDescriptor
    from daft.ai.provider import PROVIDERS, Provider
    from daft.ai.typing import EmbeddingDimensions, UDFOptions

NAME = "fastrank"
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_OF_DAFT = ("max_retries", "num_gpus")  # options that Daft's own providers have; ours does not retry, nor ask for GPUs


def install() -> None:
    """Make `embed_text(..., provider="fastrank")` known to Daft in this process.

    The model is loaded once in each process of Daft's that embeds.
    """
    PROVIDERS[NAME] = FastrankProvider


def expression(embedder: Embedder, text: Any, query: Any = None) -> Any:
    """A Daft expression of an embedder's results, of any kind. Arrow goes in and out, no Python value is made.

    Args:
        embedder: its `on_error` and `dtype` hold; its columns do not, as `text` says what is embedded.
        text: an expression, such as `df["text"]`.
        query: another, where the kind is "rerank".

    Raises:
        TypeError: a query is missing, or there should be none.
    """
    if (query is None) is (embedder.kind == "rerank"):
        raise TypeError("query is for kind='rerank', which needs it: expression(embedder, text, query)")
    given = (text,) if query is None else (text, query)
    method = daft.method.batch(
        _Results.pair if len(given) == 2 else _Results.single,
        return_dtype=_type(embedder),
        batch_size=embedder.batch_size,
    )
    results = type("Results", (_Results,), {"__call__": method})
    made = daft.cls(results, max_concurrency=1, max_retries=0)(embedder)
    return made(*given)


class FastrankProvider(Provider):
    """Daft's provider of text embeddings. Options are an Embedder's, and Daft's `on_error` and `batch_size`.

    A null has a null; with on_error "log" or "ignore" a row that cannot be embedded has one too, and its neighbours
    their vectors. Errors are final, so that nothing is retried.
    """

    def __init__(self, name: str | None = None, **options: Any) -> None:
        self._name, self._options = name or NAME, options

    @property
    def name(self) -> str:
        """What `provider=` calls it."""
        return self._name

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> TextEmbedderDescriptor:
        """What makes the embedder where it is needed.

        Raises:
            ModelNotFoundError: there is no such model.
            ValueError: `dimensions` is not the model's number, which cannot be changed.
        """
        given = {key: value for key, value in {**self._options, **options}.items() if key not in _OF_DAFT}
        given.pop("concurrency", None)
        given["on_error"] = "raise" if given.get("on_error", "raise") == "raise" else "null"
        embedder = Embedder(model or DEFAULT_MODEL, kind="dense", **given)
        if dimensions not in (None, embedder.dim):
            raise ValueError(f"dimensions={dimensions}: {embedder.model_name} has {embedder.dim}, which is fixed")
        return _Descriptor(embedder)


class _Descriptor(TextEmbedderDescriptor):
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def get_provider(self) -> str:
        return NAME

    def get_model(self) -> str:
        return self._embedder.model_name

    def get_options(self) -> dict[str, Any]:
        return dict(self._embedder.options)

    def get_dimensions(self) -> Any:
        return EmbeddingDimensions(self._embedder.dim, daft.DataType.from_arrow_type(self._embedder.type.value_type))

    def get_udf_options(self) -> Any:
        return UDFOptions(concurrency=1, max_retries=0, on_error="raise", batch_size=self._embedder.batch_size)

    def instantiate(self) -> TextEmbedder:
        return _Texts(self._embedder)


class _Texts(TextEmbedder):
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def embed_text(self, text: list[str | None]) -> list[Any]:
        return list(self._embedder({self._embedder.column: text})[self._embedder.output])


class _Results:
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def single(self, text: Any) -> Any:
        return self._embedder.embed(_arrow(text))

    def pair(self, text: Any, query: Any) -> Any:
        return self._embedder.embed(_arrow(text), _arrow(query))


def _arrow(series: Any) -> Any:
    return series.to_arrow()


def _type(embedder: Embedder) -> Any:
    kind = embedder.type
    if embedder.kind == "dense" and embedder.lists == "fixed" and embedder.dtype != "float16":
        return daft.DataType.embedding(daft.DataType.from_arrow_type(kind.value_type), embedder.dim)
    return daft.DataType.from_arrow_type(kind)
