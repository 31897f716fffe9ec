"""FastEmbed's import path of `fastrank.TextCrossEncoder`."""

from fastrank.ranking import RankedDocument
from fastrank.text_cross_encoder import TextCrossEncoder

__all__ = ["RankedDocument", "TextCrossEncoder"]
