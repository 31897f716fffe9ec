"""Smaller forms of token embeddings: fewer tokens per document, or one vector of fixed size.

In: float32 arrays of shape (tokens, dim). Out: (fewer tokens, dim) from `pool_tokens`, (size,) from `Muvera`.
"""

from fastrank.postprocess.muvera import Muvera
from fastrank.postprocess.token_pooling import pool_tokens

__all__ = ["Muvera", "pool_tokens"]
