"""Reranking with cross-encoders: `TextCrossEncoder`.

In: a query and documents, scored in pairs. Out: one score per document, or the documents ranked.
"""

from fastrank.rerank.cross_encoder import TextCrossEncoder
from fastrank.rerank.ranking import RankedDocument

__all__ = ["RankedDocument", "TextCrossEncoder"]
