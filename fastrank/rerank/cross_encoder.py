"""FastEmbed's import path of `fastrank.TextCrossEncoder`."""

from fastrank.text_cross_encoder import RankedDocument, TextCrossEncoder

__all__ = ["RankedDocument", "TextCrossEncoder"]
