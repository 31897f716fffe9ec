"""Sparse vectors: `SparseTextEmbedding` for BM25, SPLADE, BM42 and MiniCOIL.

In: texts. Out: `SparseEmbedding`, token or word ids with their weights.
"""

from fastrank.sparse.embedding import SparseEmbedding
from fastrank.sparse.sparse_text_embedding import SparseTextEmbedding

__all__ = ["SparseEmbedding", "SparseTextEmbedding"]
