"""What a request asks for and what it is given, the same for all families.

A call names a model as the client did; `None` is the default of its task. `truncate` is None where the client leaves it
to the server. `field` is what errors call the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
Side: TypeAlias = Literal["right", "left"]
Role: TypeAlias = Literal["query", "passage"] | None
Method: TypeAlias = Literal["rerank", "dense", "late", "sparse"]  # cross-encoder, cosine, MaxSim, words


@dataclass(frozen=True)
class Chunks:
    """Texts that are too long are read in chunks, of at most so many tokens (None: as many as fit)."""

    size: int | None = None
    overlap: int = 0
    most: int | None = None  # chunks of a text that are read; None: all


@dataclass(frozen=True)
class Embed:
    """One vector for each text."""

    model: str | None
    texts: Sequence[str]
    role: Role = None  # None: the text as it is
    normalize: bool | None = None  # None: as the model's authors do it
    dimensions: int | None = None
    truncate: bool | None = None
    side: Side = "right"  # where a long text is cut
    field: str = "input"
    prompt: str | None = None  # put before each text, in place of the model's prefix
    chunks: Chunks | None = None  # read long texts in chunks
    one_document: bool = False  # the texts are parts of one document, which the model reads as a whole


@dataclass(frozen=True)
class EmbedTokens:
    """A vector for each token of each text."""

    model: str | None
    texts: Sequence[str]
    role: Role = None
    truncate: bool | None = None
    side: Side = "right"
    field: str = "input"


@dataclass(frozen=True)
class EmbedSparse:
    """One sparse vector for each text."""

    model: str | None
    texts: Sequence[str]
    role: Role = None
    truncate: bool | None = None
    side: Side = "right"
    field: str = "input"


@dataclass(frozen=True)
class Score:
    """One score for each pair of query and document; a text that is no pair is classified alone."""

    model: str | None
    pairs: Sequence[tuple[str, str] | str]
    truncate: bool | None = None
    max_document_tokens: int | None = None
    side: Side = "right"
    field: str = "documents"
    method: Method | None = None  # how; None: as a model that is a reranker does it
    chunks: Chunks | None = None  # read long documents in chunks


@dataclass(frozen=True)
class Tokenize:
    """The tokens of each text."""

    model: str | None
    texts: Sequence[str]
    special: bool = True
    field: str = "inputs"


@dataclass(frozen=True)
class Match:
    """How each token of a query meets each token of a document, in late interaction."""

    model: str | None
    query: str
    document: str
    field: str = "document"

    @property
    def texts(self) -> Sequence[str]:
        """Both."""
        return self.query, self.document


Call: TypeAlias = Embed | EmbedTokens | EmbedSparse | Score | Tokenize | Match


@dataclass(frozen=True)
class Cost:
    """What a call took."""

    tokens: int = 0
    truncated: int = 0  # texts that were cut
    seconds: float = 0.0


@dataclass(frozen=True)
class Vectors:
    """float32 of shape (texts, dimensions)."""

    model: str
    rows: Floats
    cost: Cost = default(default_factory=Cost)


@dataclass(frozen=True)
class TokenVectors:
    """For each text float32 of shape (tokens, dimensions)."""

    model: str
    rows: Sequence[Floats]
    cost: Cost = default(default_factory=Cost)


@dataclass(frozen=True)
class SparseVectors:
    """For each text its indices and their values, of the same length."""

    model: str
    rows: Sequence[tuple[NDArray[Any], NDArray[Any]]]
    cost: Cost = default(default_factory=Cost)


@dataclass(frozen=True)
class Scores:
    """For each pair a score in [0, 1] and the raw one: a logit, a cosine or a MaxSim.

    `lengths` are the tokens of each pair, negative where the text was cut; empty where they are not known.
    """

    model: str
    values: Sequence[float]
    raw: Sequence[float]
    label: str = "LABEL_0"
    lengths: Sequence[int] = ()
    cost: Cost = default(default_factory=Cost)


@dataclass(frozen=True)
class Piece:
    """A token and where it stands in its text, in characters."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class Pieces:
    """The tokens of each text."""

    model: str
    rows: Sequence[Sequence[Piece]]
    cost: Cost = default(default_factory=Cost)


@dataclass(frozen=True)
class Matches:
    """What `LateInteractionTextEmbedding.explain(...).as_dict()` says: tokens, similarities, matches, score."""

    model: str
    explanation: Mapping[str, Any]
    cost: Cost = default(default_factory=Cost)


Result: TypeAlias = Matches | Vectors | TokenVectors | SparseVectors | Scores | Pieces


@dataclass(frozen=True)
class Exchange:
    """A request that was understood: what to run, and how to answer with the result.

    `call` is None where nothing needs to run; `answer` is then given None.
    """

    call: Call | None
    answer: Callable[[Any], Any]
