"""Smaller forms of token vectors: fewer tokens a document, or one vector of fixed length."""

from fastrank.postprocess.muvera import Muvera
from fastrank.postprocess.token_pooling import pool_tokens

__all__ = ["Muvera", "pool_tokens"]
