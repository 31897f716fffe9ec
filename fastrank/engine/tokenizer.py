"""From text to token ids. The only module that imports `tokenizers`.

Truncation and padding are always set here, whatever tokenizer.json says: published files carry padding to 128 tokens,
a limit of 128 under a model that takes 256, or none at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrank.engine.batching import Tokens
from fastrank.errors import ModelLoadError
from fastrank.models.tokenization import TokenizerSettings

if TYPE_CHECKING:
    import tokenizers

Text: TypeAlias = "str | tuple[str, str]"

_CHARACTERS_A_TOKEN = 64  # far above what any vocabulary spends on a token
_SHORTEST_CUT = 16_384


class Tokenizer:
    """A tokenizer.json with limit and padding of our own. Never changed after construction, so threads may share it.

    Args:
        settings: what the model's folder says.
        max_length: tokens a text may have, special ones included; what is longer is truncated. None: as `settings`.
        truncation: for pairs: "longest_first" shortens the longer of the two, token by token; "only_second" leaves the
            first whole, unless it alone is too long.
        capped: lower `max_length` to the positions the model has, instead of raising an error.
        reserved: how many of the `max_length` tokens are left for the caller to add.
        special_tokens_in_text: whether "[SEP]" in a text is the special token, or plain text.

    Raises:
        ModelLoadError: tokenizer.json is damaged or hostile.
        ValueError: `max_length` is more than the model has positions, or leaves no room beside the special tokens.
    """

    def __init__(
        self,
        settings: TokenizerSettings,
        max_length: int | None = None,
        truncation: str = "longest_first",
        *,
        capped: bool = False,
        reserved: int = 0,
        special_tokens_in_text: bool = True,
    ) -> None:
        self.max_length = max_length or settings.max_length
        with _no_panic(settings.path):
            import tokenizers

            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(settings.path))
            padding = self._tokenizer.padding
            self._tokenizer.no_padding()
            if settings.lowercase:
                steps = [tokenizers.normalizers.Lowercase(), self._tokenizer.normalizer]
                self._tokenizer.normalizer = tokenizers.normalizers.Sequence(
                    [step for step in steps if step is not None]
                )
            self._adds_special = settings.special_tokens
            self._dropped = _unknown(self._tokenizer) if settings.drop_unknown else None
            special = self._tokenizer.num_special_tokens_to_add(is_pair=False) if self._adds_special else 0
            special += reserved
            if self.max_length <= special:
                raise ValueError(
                    f"max_length={self.max_length} leaves no room for text: this model adds {special} special tokens"
                )
            if settings.positions and self.max_length > settings.positions:
                if not capped:
                    raise ValueError(
                        f"max_length={self.max_length} is more than this model has positions: {settings.positions}"
                    )
                self.max_length = settings.positions
            self._room = self.max_length - reserved
            self._other: tokenizers.Tokenizer | None = None
            if truncation != "longest_first":
                self._other = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
                self._other.enable_truncation(self._room)
            self._tokenizer.enable_truncation(self._room, strategy=truncation)
            for each in filter(None, (self._tokenizer, self._other)):
                each.encode_special_tokens = not special_tokens_in_text
            self.pad_id = _pad_id(settings, self._tokenizer, padding)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._cut = max(_SHORTEST_CUT, self.max_length * _CHARACTERS_A_TOKEN)

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text or pair, special ones included: one to `max_length`, less those that are reserved."""
        shortened = [_beginning(text, self._cut) for text in texts]
        encodings = self._encoded(shortened)
        for position, text in enumerate(texts):
            if len(encodings[position]) < self._room and shortened[position] != text:
                encodings[position] = self._whole(text)
        return [
            self._tokens(encoding, pair=isinstance(text, tuple))
            for encoding, text in zip(encodings, texts, strict=True)
        ]

    def _encoded(self, texts: Sequence[Text]) -> list[tokenizers.Encoding]:
        with _no_panic("the tokenizer"):
            try:
                return list(self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._adds_special))
            except Exception:
                if self._other is None or len(texts) == 0:
                    raise
                if len(texts) == 1:  # its query alone is too long: cut that too
                    return list(self._other.encode_batch_fast(texts))
        return [self._encoded([text])[0] for text in texts]

    def _tokens(self, encoding: tokenizers.Encoding, *, pair: bool) -> Tokens:
        if not self._adds_special:
            kept = [token_id for token_id in encoding.ids if token_id != self._dropped]
            return Tokens(np.asarray(kept or [self.pad_id], np.int32), attended=len(kept))
        ids = np.asarray(encoding.ids or [self.pad_id], np.int32)
        return Tokens(ids, np.asarray(encoding.type_ids or [0], np.int32) if pair else None)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary; None if it has no such token."""
        token_id: int | None = self._tokenizer.token_to_id(token)
        return token_id

    def first_token_id(self, text: str) -> int | None:
        """The id of the first token of a text, special ones left out; None if it has none."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return int(ids[0]) if ids else None

    @cached_property
    def vocab(self) -> list[str | None]:
        """The vocabulary by id; None where an id has no token."""
        ids = self._tokenizer.get_vocab()
        tokens: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
        for token, token_id in ids.items():
            tokens[token_id] = token
        return tokens

    def _whole(self, text: Text) -> tokenizers.Encoding:
        """For the rare text whose long beginning has fewer tokens than the limit (a megabyte of spaces, say)."""
        cut = self._cut
        while True:
            cut *= 8
            shortened = _beginning(text, cut)
            (encoding,) = self._encoded([shortened])
            if len(encoding) >= self._room or shortened == text:
                return encoding


def _beginning(text: Text, cut: int) -> Text:
    """The beginning of a huge text (or of both of a pair), ended between two words where it has words.

    Cutting 10 MB to 512 tokens takes `tokenizers` 11 seconds and 1.3 GB; with the rest cut off before, nothing.
    """
    if isinstance(text, tuple):
        first, second = text
        return (first, second) if len(first) <= cut >= len(second) else (_cut(first, cut), _cut(second, cut))
    return _cut(text, cut)


def _cut(text: str, cut: int) -> str:
    if len(text) <= cut:
        return text
    end = max(text.rfind(" ", cut // 2, cut), text.rfind("\n", cut // 2, cut))
    return text[: end if end > 0 else cut]


def _pad_id(settings: TokenizerSettings, tokenizer: tokenizers.Tokenizer, padding: dict[str, Any] | None) -> int:
    """The padding token's id: tokenizer.json's, config.json's, or a usual one's; else 0, as it is masked anyway."""
    if padding is not None:
        return int(padding["pad_id"])
    if settings.pad_token_id is not None:
        return settings.pad_token_id
    ids = map(tokenizer.token_to_id, settings.pad_tokens)
    return int(next((token_id for token_id in ids if token_id is not None), 0))


def _unknown(tokenizer: tokenizers.Tokenizer) -> int | None:
    """The unknown token's id, which model2vec drops; None if there is none."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        return None if model.unk_token is None else tokenizer.token_to_id(model.unk_token)
    unknown: int | None = json.loads(tokenizer.to_str())["model"].get("unk_id")  # of Unigram
    return unknown


@contextmanager
def _no_panic(what: object) -> Iterator[None]:
    """`tokenizers` panics on hostile files with an error that is no `Exception`; make it one."""
    try:
        yield
    except (ModelLoadError, ValueError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelLoadError(f"{what} cannot be used: {error}") from error
        raise
