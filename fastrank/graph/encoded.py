"""What an encoder hands to the head on top of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Sizes(NamedTuple):
    """The checked sizes of an encoder, from `config.json`; every architecture has these."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    positions: int
    epsilon: float
    activation: str


class Encoded(NamedTuple):
    """An encoder written up to its last layer; the head calls ONE of the functions, for the tokens it needs.

    Attributes:
        input_ids: The input, int64 [batch, sequence].
        attention_mask: The input, int64 [batch, sequence].
        sizes: The encoder's.
        all_tokens: Writes the last layer; returns the last hidden states, float32 [batch * sequence, hidden], and the
            attention probabilities of the last layer, float32 [batch, heads, sequence, sequence].
        first_token: Writes the last layer for the first token of every text only, where the architecture can; returns
            its last hidden states, float32 [batch, hidden]. Of 6 layers that saves an eighth of the time.
        token_at: The same for one token of every text, at the given positions, int64 [batch]. Of decoders only.
        before_layers: The states before each layer, float32 [batch * sequence, hidden]; empty: it does not tell.
    """

    input_ids: str
    attention_mask: str
    sizes: Sizes
    all_tokens: Callable[[], tuple[str, str]]
    first_token: Callable[[], str]
    token_at: Callable[[str], str] | None = None
    before_layers: tuple[str, ...] = ()
