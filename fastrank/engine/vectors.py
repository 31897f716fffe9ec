"""What a call makes of a model's vectors: fewer numbers, smaller numbers. Checked at the call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from fastrank import inputs, log
from fastrank.engine.calls import Call, TextOptions, VectorOptions
from fastrank.engine.loaded import Lazy, TextPipeline
from fastrank.engine.overflow import ChunkVectors
from fastrank.models.spec import Matryoshka

Choose: TypeAlias = "Callable[[Any], TextPipeline[Any]]"

OPTIONS = set(VectorOptions.__annotations__) - set(TextOptions.__annotations__)


class Shortening(NamedTuple):
    """How vectors are shortened.

    Attributes:
        normalize: whether they are normalized again; None: if they are normalized.
        layer_norm: whether they get mean 0 and variance 1 before.
    """

    normalize: bool | None = None
    layer_norm: bool = False

    def of(self, vectors: Any, dim: int) -> Any:
        """The first `dim` numbers of vectors (..., dim)."""
        if dim == vectors.shape[-1]:
            return vectors
        from fastrank.postprocess import quantization

        return quantization.truncate(vectors, dim, normalize=self.normalize, layer_norm=self.layer_norm)


_BY_LENGTH = Shortening()


class Form(NamedTuple):
    """The form of the vectors that a call returns.

    Attributes:
        dim: how many numbers are kept; None: all.
        dtype: one of `postprocess.quantization.DTYPES`.
        ranges: for "int8" and "uint8": (2, dim), or "unit".
    """

    dim: int | None = None
    dtype: str = "float32"
    ranges: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether vectors stay as they are."""
        return self.dim is None and self.dtype == "float32"

    def of(self, vectors: Any, shortening: Shortening = _BY_LENGTH) -> Any:
        """Vectors (..., dim) in this form."""
        from fastrank.postprocess import quantization

        if self.dim is not None:
            vectors = shortening.of(vectors, self.dim)
        return quantization.quantize(vectors, self.dtype, self.ranges)


PLAIN = Form()


def size(dim: int | None, truncate_dim: int | None) -> int | None:
    """The size of vectors that are shortened, as far as it is known.

    Raises:
        ValueError: they are to be larger than they are.
    """
    if dim is not None and truncate_dim is not None and truncate_dim > dim:
        raise ValueError(f"truncate_dim={truncate_dim} is more than the {dim} dimensions of this model's vectors")
    return dim if dim is None or truncate_dim is None else truncate_dim


def trained_for(dims: Sequence[int] | None) -> Matryoshka | None:
    """Sizes that a model was trained for, as a caller says them."""
    return None if dims is None else Matryoshka(tuple(inputs.positive(each, "truncate_dims") for each in dims))


def form(given: Mapping[str, Any], defaults: Form, dim: int | None) -> Form:
    """The form that the caller asks for, else that of the instance.

    Args:
        given: what the caller passed.
        defaults: of the instance; its `dim` is None, as the model itself does that.
        dim: the size of the model's vectors; None: not known before a run.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of range, or "int8" and "uint8" have no ranges.
    """
    if all(given.get(name) is None for name in OPTIONS):
        wanted = defaults
    else:
        wanted = Form(
            None if given.get("truncate_dim") is None else inputs.positive(given["truncate_dim"], "truncate_dim"),
            given.get("output_dtype") or defaults.dtype,
            defaults.ranges if given.get("ranges") is None else given["ranges"],
        )
    if wanted.is_plain and wanted.ranges is None:
        return PLAIN
    kept = size(dim, wanted.dim) or wanted.dim
    return wanted._replace(ranges=_ranges(wanted, kept))


def _ranges(wanted: Form, dim: int | None) -> Any:
    """The ranges, checked."""
    from fastrank.postprocess import quantization

    if wanted.dtype not in quantization.DTYPES:
        names = ", ".join(map(repr, quantization.DTYPES))
        raise ValueError(f"output_dtype must be one of {names}, not {wanted.dtype!r}")
    if wanted.dtype not in ("int8", "uint8"):
        if wanted.ranges is not None:
            raise ValueError(f'ranges are for output_dtype="int8" and "uint8", not {wanted.dtype!r}')
        return None
    if wanted.ranges is None:
        raise ValueError(
            f"output_dtype={wanted.dtype!r} needs ranges: ranges=model.calibrate(a thousand of your texts), to be kept "
            'and used for all vectors that are to be compared; or ranges="unit" for normalized vectors'
        )
    if isinstance(wanted.ranges, str):
        if wanted.ranges != quantization.UNIT:
            raise ValueError(f"ranges must be an array of the shape (2, dim), or 'unit', not {wanted.ranges!r}")
        return wanted.ranges
    return quantization.check_ranges(wanted.ranges, dim)


class VectorCall(NamedTuple):
    """A call for vectors, checked.

    Attributes:
        model: runs it.
        call: its options.
        form: of the vectors.
        total: how many texts there are; None: not known.
    """

    model: Lazy[Any]
    call: Call
    form: Form
    total: int | None

    def run(self, choose: Choose, texts: Iterator[str], batch_size: int, workers: int | None) -> Iterator[Any]:
        """One result per text; `choose` takes the pipeline of a loaded model."""
        loaded = self.model.get()
        results = self.call.pipeline(choose(loaded)).run(texts, batch_size, workers)
        if not self.form.is_plain:
            results = _formed(results, self.form, _of(loaded.settings))
        return self.call.shown(results, "embed", self.total)

    def arun(self, choose: Choose, texts: Iterator[str], batch_size: int, workers: int | None) -> AsyncIterator[Any]:
        """The same for asyncio."""
        from fastrank.engine import asynchronous  # asyncio is loaded only where it is used

        loaded: list[Any] = []

        def chosen(model: Any) -> Any:
            loaded.append(model.settings)
            return self.call.pipeline(choose(model))

        results = asynchronous.run(self.model, chosen, texts, batch_size, workers)
        if not self.form.is_plain:
            results = asynchronous.mapped(results, lambda vectors: _changed(vectors, self.form, _of(loaded[0])))
        return asynchronous.shown(results, "embed", self.total) if self.call.show_progress else results


def _formed(results: Iterator[Any], form: Form, shortening: Shortening) -> Iterator[Any]:
    for result in results:
        yield _changed(result, form, shortening)


def _changed(result: Any, form: Form, shortening: Shortening) -> Any:
    if not isinstance(result, ChunkVectors):
        return form.of(result, shortening)
    if isinstance(result.vectors, list):
        return result._replace(vectors=[form.of(vectors, shortening) for vectors in result.vectors])
    return result._replace(vectors=form.of(result.vectors, shortening))


def _of(settings: Any) -> Shortening:
    shortening: Shortening = getattr(settings, "shortening", _BY_LENGTH)
    return shortening


class Dimensions:
    """Which sizes of vectors a model was trained for; says once if another is asked for."""

    def __init__(self, name: str, trained: Matryoshka | None) -> None:
        self._name, self._trained = name, trained
        self._said: set[int] = set()

    def check(self, wanted: int | None, dim: int | None) -> None:
        """Warn if a model was not trained for vectors of this size, as far as is known; `dim` is the whole."""
        if wanted is None or wanted == dim or wanted in self._said:
            return
        trained = self._trained
        if trained is not None and trained.fits(wanted):
            return
        self._said.add(wanted)
        if trained is None:
            log.warning(
                "%s: nothing is known of a training for shorter vectors (Matryoshka). The first %d numbers of one may "
                "find much less than all of them: measure before you use them.",
                self._name,
                wanted,
            )
        else:
            log.warning(
                "%s was trained for vectors of %s numbers (Matryoshka), not of %d.", self._name, trained, wanted
            )
