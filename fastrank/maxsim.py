"""MaxSim for token embeddings you already have.

    MaxSim(query, document) = sum over query tokens of the highest dot product with any document token

Khattab and Zaharia, 2020 (ColBERT). Document tokens are concatenated: one matrix product per block of documents, then
the maximum over each document's columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float32]
Lengths: TypeAlias = NDArray[np.int64]

_BLOCK = 32_768  # tokens per matrix product; with a query of 32 tokens its result has 4 MiB


def maxsim(
    query: ArrayLike,
    documents: ArrayLike | Sequence[ArrayLike],
    lengths: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
) -> Floats:
    """MaxSim of a query and each document.

    Embeddings may be float32 or float16 (half the memory); products and sums are float32. Memory beyond the documents:
    the scores and one block of 32,768 tokens, or the longest document if that is longer.

    Args:
        query: (tokens, dim).
        documents: one of
            a sequence of arrays (tokens, dim), of any lengths;
            an array (all tokens, dim), the concatenated documents, with `lengths`: the fastest, as nothing is copied;
            an array (documents, longest, dim), padded, with `lengths` or `mask` (without both: no padding).
        lengths: (documents,): number of tokens of each document; in padded documents, the leading ones.
        mask: (documents, longest): true at the tokens of a padded document.

    Returns:
        float32 (documents,). A document without tokens scores 0, as does every document for a query without tokens.

    Raises:
        ValueError: shapes do not match; the message says which.
    """
    query_tokens = np.ascontiguousarray(query, np.float32)
    if query_tokens.ndim != 2:
        raise ValueError(f"query must have the shape (tokens, dim), not {query_tokens.shape}")
    if isinstance(documents, np.ndarray) and documents.dtype != object:
        blocks = _of_array(documents, lengths, mask)
    elif lengths is not None or mask is not None:
        raise ValueError("lengths and mask are for one array of documents, not for a sequence of arrays")
    else:
        blocks = _of_sequence([np.asarray(document) for document in documents])  # type: ignore[union-attr]
    scores = [_block(query_tokens, tokens, counts) for tokens, counts in blocks]
    return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def _block(query: Floats, tokens: NDArray[Any], lengths: Lengths) -> Floats:
    """Scores of documents whose tokens are concatenated: (tokens, dim), (documents,) -> (documents,)."""
    if tokens.shape[1] != query.shape[1]:
        raise ValueError(
            f"query embeddings have {query.shape[1]} dimensions, document embeddings {tokens.shape[1]}; they must match"
        )
    scores = np.zeros(len(lengths), np.float32)
    nonempty = lengths > 0  # no columns, no maximum
    if nonempty.any():
        starts = (np.cumsum(lengths) - lengths)[nonempty]
        products = query @ tokens.astype(np.float32, copy=False).T
        scores[nonempty] = np.maximum.reduceat(products, starts, axis=1).sum(axis=0)
    return scores


def _of_sequence(documents: Sequence[NDArray[Any]]) -> Iterator[tuple[NDArray[Any], Lengths]]:
    for position, document in enumerate(documents):
        if document.ndim != 2:
            raise ValueError(f"documents[{position}] must have the shape (tokens, dim), not {document.shape}")
    lengths = np.array([len(document) for document in documents], np.int64)
    for part in _parts(lengths):
        yield np.concatenate(documents[part]), lengths[part]


def _of_array(
    documents: NDArray[Any], lengths: ArrayLike | None, mask: ArrayLike | None
) -> Iterator[tuple[NDArray[Any], Lengths]]:
    if documents.ndim == 3:
        return _of_padded(documents, _kept(documents, lengths, mask))
    if documents.ndim == 2 and lengths is not None and mask is None:
        counts = np.asarray(lengths, np.int64)
        if counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(documents):
            raise ValueError(f"lengths must be one-dimensional and sum to the number of tokens, {len(documents)}")
        return _of_concatenated(documents, counts)
    raise ValueError(
        f"documents of shape {documents.shape}: pass (documents, longest, dim) with lengths or mask, (all tokens, dim) "
        "with lengths, or a sequence of arrays (for one document: [document])"
    )


def _of_concatenated(tokens: NDArray[Any], lengths: Lengths) -> Iterator[tuple[NDArray[Any], Lengths]]:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for part in _parts(lengths):
        yield tokens[ends[part.start] : ends[part.stop]], lengths[part]


def _of_padded(documents: NDArray[Any], kept: NDArray[np.bool_]) -> Iterator[tuple[NDArray[Any], Lengths]]:
    lengths = kept.sum(axis=1)
    for part in _parts(lengths):
        yield documents[part][kept[part]], lengths[part]


def _kept(documents: NDArray[Any], lengths: ArrayLike | None, mask: ArrayLike | None) -> NDArray[np.bool_]:
    """Which rows of padded documents are tokens: (documents, longest)."""
    shape = documents.shape[:2]
    if lengths is not None and mask is not None:
        raise ValueError("pass lengths or mask, not both")
    if mask is not None:
        kept = np.asarray(mask, bool)
        if kept.shape != shape:
            raise ValueError(f"mask has the shape {kept.shape}; expected {shape}, as the documents")
        return kept
    if lengths is None:
        return np.ones(shape, bool)
    counts = np.asarray(lengths, np.int64)
    if counts.shape != shape[:1] or (counts < 0).any() or (counts > shape[1]).any():
        raise ValueError(f"lengths must be {shape[0]} integers from 0 to {shape[1]}")
    return np.arange(shape[1]) < counts[:, None]


def _parts(lengths: Lengths) -> Iterator[slice]:
    """Slices of consecutive documents with at most `_BLOCK` tokens together; a longer document is alone."""
    start = tokens = 0
    for position, length in enumerate(lengths.tolist()):
        if position > start and tokens + length > _BLOCK:
            yield slice(start, position)
            start, tokens = position, 0
        tokens += length
    if start < len(lengths):
        yield slice(start, len(lengths))
