"""What late interaction puts into the tokens of a text: a marker, and [MASK]s that fill short queries up."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastrank.engine.batching import Tokens
from fastrank.engine.tokenizer import Text, Tokenizer
from fastrank.errors import ModelLoadError


class MarkedTokenizer(Tokenizer):
    """A tokenizer of queries, or of documents. Never changed after construction, so threads may share it.

    Args:
        folder: the model's.
        max_length: tokens a text may have, marker and special ones included; None: what the folder says.
        marker: a token or its id; None: none.
        position: how many tokens stand before the marker.
        fill_to: shorter texts get `fill` until they have so many tokens; 0: none.
        fill: a token.
        attend: whether those are attended to.
        capped: lower `max_length` to the positions the model has, instead of raising an error.
        special_tokens_in_text: whether "[SEP]" in a text is the special token, or plain text.

    Raises:
        ModelLoadError: as `Tokenizer`, or the vocabulary has no such marker or filling.
        ValueError: as `Tokenizer`.
    """

    def __init__(
        self,
        folder: Path,
        max_length: int | None = None,
        *,
        marker: int | str | None = None,
        position: int = 1,
        fill_to: int = 0,
        fill: str = "",
        attend: bool = False,
        capped: bool = False,
        special_tokens_in_text: bool = True,
    ) -> None:
        super().__init__(
            folder,
            max_length,
            capped=capped,
            reserved=0 if marker is None else 1,
            special_tokens_in_text=special_tokens_in_text,
        )
        self._marker = self._known(marker, folder) if isinstance(marker, str) else marker
        self._position = position
        self._fill_to = fill_to
        self._fill = self._known(fill, folder) if fill_to else self.pad_id
        self._attend = attend

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text with its marker and its filling, at most `max_length` each where nothing fills up."""
        return [self._marked(tokens.ids) for tokens in super().encode(texts)]

    def unmarked(self) -> MarkedTokenizer:
        """The same tokenizer without marker and filling."""
        plain = copy.copy(self)
        plain._marker, plain._fill_to = None, 0  # noqa: SLF001 - its own
        return plain

    def _marked(self, ids: np.typing.NDArray[np.int32]) -> Tokens:
        if self._marker is not None:
            ids = np.insert(ids, min(self._position, len(ids)), self._marker)
        missing = self._fill_to - len(ids)
        if missing <= 0:
            return Tokens(ids)
        filled = np.append(ids, np.full(missing, self._fill, np.int32))
        return Tokens(filled, attended=None if self._attend else len(ids))

    def _known(self, token: str, folder: Path) -> int:
        number = self.number(token)
        if number is None:
            raise ModelLoadError(
                f"{folder / 'tokenizer.json'} has no token {token!r}, which this model's settings name"
            )
        return number
