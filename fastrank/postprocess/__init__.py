"""Smaller forms of embeddings.

Fewer tokens per document (`pool_tokens`), one vector of fixed size for token embeddings (`Muvera`), fewer and smaller
numbers (`quantization`). In: float32 arrays of shape (dim,), (vectors, dim) or (tokens, dim).
"""

from fastrank.postprocess.muvera import Muvera
from fastrank.postprocess.quantization import calibrate, dequantize, quantize, rescore, search, truncate
from fastrank.postprocess.token_pooling import pool_tokens

__all__ = ["Muvera", "calibrate", "dequantize", "pool_tokens", "quantize", "rescore", "search", "truncate"]
