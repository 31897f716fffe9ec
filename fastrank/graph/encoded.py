"""What an encoder hands to the head on top of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What `config.json` says about an encoder, checked; every architecture has these."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    positions: int
    epsilon: float
    activation: str


@dataclass(frozen=True)
class Encoded:
    """Names of values in the graph, and the encoder's sizes.

    Attributes:
        rows: The hidden states of the last layer, float32 [batch * sequence, hidden].
        attention: The probabilities of the last layer's attention, float32 [batch, heads, sequence, sequence].
        input_ids: The input, int64 [batch, sequence].
        attention_mask: The input, int64 [batch, sequence].
        sizes: The encoder's.
    """

    rows: str
    attention: str
    input_ids: str
    attention_mask: str
    sizes: Sizes
