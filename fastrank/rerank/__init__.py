"""FastEmbed's place for cross-encoders: `from fastrank.rerank.cross_encoder import TextCrossEncoder`."""
