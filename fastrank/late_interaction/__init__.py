"""Late interaction: one embedding per token, compared by MaxSim. Khattab and Zaharia, 2020 (ColBERT).

In: texts. Out: float32 arrays of shape (tokens, dim), or MaxSim scores.
"""

from fastrank.late_interaction.late_interaction_text_embedding import LateInteractionTextEmbedding

__all__ = ["LateInteractionTextEmbedding"]
