"""Late interaction: one vector a token, compared by MaxSim. Khattab and Zaharia, 2020 (ColBERT)."""

from fastrank.late_interaction.late_interaction_text_embedding import LateInteractionTextEmbedding

__all__ = ["LateInteractionTextEmbedding"]
