"""What late interaction adds to the tokens of a text: a prefix token, and query expansion."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastrank.engine.batching import Tokens
from fastrank.engine.tokenizer import Span, Text, Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.late_interaction.settings import TextSettings
from fastrank.models.tokenization import TokenizerSettings


class LateInteractionTokenizer(Tokenizer):
    """A tokenizer of queries, or of documents. Never changed after construction, so threads may share it.

    Args:
        settings: what the model's folder says.
        text: what is done to the tokens.
        special_tokens_in_text: whether "[SEP]" in a text is the special token, or plain text.

    Raises:
        ModelLoadError: as `Tokenizer`, or the vocabulary has no such prefix or expansion token.
        ValueError: as `Tokenizer`.
    """

    def __init__(self, settings: TokenizerSettings, text: TextSettings, *, special_tokens_in_text: bool = True) -> None:
        super().__init__(
            settings,
            text.max_length,
            capped=text.capped,
            reserved=0 if text.prefix_token is None else 1,
            special_tokens_in_text=special_tokens_in_text,
        )
        self._name = settings.path
        self._text = text
        prefix = text.prefix_token
        self._prefix_id = self._id(prefix) if isinstance(prefix, str) else prefix
        self._expand_to = text.expand_to
        self._expansion_id = self._id(text.expansion_token) if text.expand_to else self.pad_id

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text with prefix token and expansion; at most `max_length` where nothing is expanded."""
        return [self._prefixed(tokens.ids)._replace(cut=tokens.cut) for tokens in super().encode(texts)]

    def lengths(self, texts: Sequence[Text]) -> list[int]:
        """The number of tokens of each text with prefix token and expansion, not truncated."""
        added = 0 if self._prefix_id is None else 1
        return [max(length + added, self._expand_to) for length in super().lengths(texts)]

    def located(self, text: str) -> list[Span]:
        """The tokens that `encode` makes of a text and where they stand in it, prefix token and expansion included."""
        spans = super().located(text)
        if self._prefix_id is not None:
            spans.insert(min(self._text.prefix_position, len(spans)), self._nowhere(self._prefix_id))
        return spans + [self._nowhere(self._expansion_id)] * (self._expand_to - len(spans))

    def _nowhere(self, token_id: int) -> Span:
        name = self.vocab[token_id] if token_id < len(self.vocab) else None
        return Span(token_id, name or f"#{token_id}", True, 0, 0)

    def plain(self) -> LateInteractionTokenizer:
        """The same tokenizer without prefix token and expansion."""
        plain = copy.copy(self)
        plain._prefix_id, plain._expand_to = None, 0  # noqa: SLF001 - its own
        return plain

    def _prefixed(self, ids: NDArray[np.int32]) -> Tokens:
        if self._prefix_id is not None:
            ids = np.insert(ids, min(self._text.prefix_position, len(ids)), self._prefix_id)
        missing = self._expand_to - len(ids)
        if missing <= 0:
            return Tokens(ids)
        expanded = np.append(ids, np.full(missing, self._expansion_id, np.int32))
        return Tokens(expanded, attended=None if self._text.attend_to_expansion_tokens else len(ids))

    def _id(self, token: str) -> int:
        token_id = self.token_to_id(token)
        if token_id is None:
            raise ModelLoadError(f"{self._name} has no token {token!r}, which this model's settings name")
        return token_id
