"""MaxSim over vectors that are there already: of models of late interaction, whoever made them.

    MaxSim(query, document) = sum over the query's tokens of the largest product with a token of the document

Khattab and Zaharia, 2020 (ColBERT). All documents are tokens in a row: one matrix product for a block of them, then the
largest of each document's stretch of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float32]
Lengths: TypeAlias = NDArray[np.int64]

_BLOCK = 32_768  # tokens in one product: for a query of 32 tokens, that has 4 MiB


def maxsim(
    query: ArrayLike,
    documents: ArrayLike | Sequence[ArrayLike],
    lengths: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
) -> Floats:
    """The MaxSim of a query and each document.

    Vectors may be float32 or float16 (half the memory); products are made and summed in float32. Beside the documents
    it needs memory for the scores and for one block: 32,768 tokens, or the longest document if that has more.

    Args:
        query: (tokens, dim).
        documents: one of
            a sequence of arrays (tokens, dim), each with tokens of its own number;
            an array (all tokens, dim) with the tokens of all documents in a row, and `lengths`: the fastest, as nothing
            is copied;
            an array (documents, longest, dim), padded, and `lengths` or `mask` (neither: every row is a token).
        lengths: (documents,): how many tokens each document has; of a padded one, the first so many.
        mask: (documents, longest): true where a padded document has a token.

    Returns:
        float32 (documents,). A document without tokens scores 0, as does everything for a query without tokens.

    Raises:
        ValueError: shapes do not fit together; the message says which.
    """
    asked = np.ascontiguousarray(query, np.float32)
    if asked.ndim != 2:
        raise ValueError(f"query must have the shape (tokens, dim), not {asked.shape}")
    if isinstance(documents, np.ndarray) and documents.dtype != object:
        stretches = _of_array(documents, lengths, mask)
    elif lengths is not None or mask is not None:
        raise ValueError("lengths and mask go with one array of documents, not with a sequence of arrays")
    else:
        stretches = _of_sequence([np.asarray(document) for document in documents])  # type: ignore[union-attr]
    scores = [_block(asked, tokens, counts) for tokens, counts in stretches]
    return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def _block(query: Floats, tokens: NDArray[Any], lengths: Lengths) -> Floats:
    """Scores of some documents, whose tokens are in a row: (tokens, dim) and (documents,) to (documents,)."""
    if tokens.shape[1] != query.shape[1]:
        raise ValueError(f"the query's vectors have {query.shape[1]} numbers, the documents' {tokens.shape[1]}")
    scores = np.zeros(len(lengths), np.float32)
    present = lengths > 0  # a stretch of no columns has no largest
    if present.any():
        starts = (np.cumsum(lengths) - lengths)[present]
        products = query @ tokens.astype(np.float32, copy=False).T
        scores[present] = np.maximum.reduceat(products, starts, axis=1).sum(axis=0)
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
            raise ValueError(f"lengths must be of documents and add up to the {len(documents)} tokens")
        return _of_row(documents, counts)
    raise ValueError(
        f"documents of shape {documents.shape}: give (documents, longest, dim) with lengths or mask, (all tokens, dim) "
        "with lengths, or a sequence of arrays (for one document: [document])"
    )


def _of_row(tokens: NDArray[Any], lengths: Lengths) -> Iterator[tuple[NDArray[Any], Lengths]]:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for part in _parts(lengths):
        yield tokens[ends[part.start] : ends[part.stop]], lengths[part]


def _of_padded(documents: NDArray[Any], kept: NDArray[np.bool_]) -> Iterator[tuple[NDArray[Any], Lengths]]:
    lengths = kept.sum(axis=1)
    for part in _parts(lengths):
        yield documents[part][kept[part]], lengths[part]


def _kept(documents: NDArray[Any], lengths: ArrayLike | None, mask: ArrayLike | None) -> NDArray[np.bool_]:
    """Which rows of padded documents are tokens."""
    shape = documents.shape[:2]
    if lengths is not None and mask is not None:
        raise ValueError("give lengths or mask, not both")
    if mask is not None:
        kept = np.asarray(mask, bool)
        if kept.shape != shape:
            raise ValueError(f"mask has the shape {kept.shape}, but the documents {shape}")
        return kept
    if lengths is None:
        return np.ones(shape, bool)
    counts = np.asarray(lengths, np.int64)
    if counts.shape != shape[:1] or (counts < 0).any() or (counts > shape[1]).any():
        raise ValueError(f"lengths must be {shape[0]} numbers from 0 to {shape[1]}")
    return np.arange(shape[1]) < counts[:, None]


def _parts(lengths: Lengths) -> Iterator[slice]:
    """Consecutive documents that have at most `_BLOCK` tokens together; a longer document is alone."""
    start = tokens = 0
    for position, length in enumerate(lengths.tolist()):
        if position > start and tokens + length > _BLOCK:
            yield slice(start, position)
            start, tokens = position, 0
        tokens += length
    if start < len(lengths):
        yield slice(start, len(lengths))
