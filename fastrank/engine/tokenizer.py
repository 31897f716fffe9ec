"""From text to token ids. The only module that imports `tokenizers`.

Truncation and padding are always set here, whatever tokenizer.json says: published files carry padding to 128 tokens,
a limit of 128 under a model that takes 256, or none at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.engine.batching import Tokens
from fastrank.engine.ending import native_calls
from fastrank.errors import ModelLoadError
from fastrank.models.tokenization import TokenizerSettings

if TYPE_CHECKING:
    import tokenizers

Text: TypeAlias = "str | tuple[str, str]"

_CHARACTERS_A_TOKEN = 64  # far above what any vocabulary spends on a token
_USUAL_CHARACTERS = 8  # of a token, with room to spare
_SHORTEST_CUT = 16_384
_MOST_COMPARED = 1_000_000  # characters of the texts of a pair
_LETTERS = "0-9A-Za-z\u00c0-\u024f"  # no BERT tokenizer splits, drops or joins words at these


class Span(NamedTuple):
    """A token in its text.

    Attributes:
        id: in the vocabulary.
        token: as the vocabulary has it.
        special: whether it is a special token, which stands nowhere in the text.
        start: where it begins, in characters.
        stop: where it ends.
    """

    id: int
    token: str
    special: bool
    start: int
    stop: int


class Placed(NamedTuple):
    """The tokens of a text that is not truncated, and where they stand in it.

    Attributes:
        ids: int32 (tokens,).
        offsets: int64 (tokens, 2): from and to, in characters.
        special: bool (tokens,): which are special tokens, that stand nowhere in the text.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    special: NDArray[np.bool_]


class Tokenizer:
    """A tokenizer.json with limit and padding of our own. Never changed after construction, so threads may share it.

    Args:
        settings: what the model's folder says.
        max_length: tokens a text may have, special ones included; what is longer is truncated. None: as `settings`.
        truncation: for pairs: "longest_first" shortens the longer of the two, token by token; "only_second" leaves the
            first whole, unless it alone is too long.
        capped: lower `max_length` to the positions the model has, instead of raising an error.
        reserved: how many of the `max_length` tokens are left for the caller to add.
        pairs: texts come in pairs, each of which must have room for a token.
        special_tokens_in_text: whether "[SEP]" in a text is the special token, or plain text.

    Raises:
        ModelLoadError: tokenizer.json is damaged or hostile, or the files state a limit without room for a text.
        ValueError: the caller's `max_length` is more than the model has positions, or leaves no room.
    """

    def __init__(
        self,
        settings: TokenizerSettings,
        max_length: int | None = None,
        truncation: str = "longest_first",
        *,
        capped: bool = False,
        reserved: int = 0,
        pairs: bool = False,
        special_tokens_in_text: bool = True,
    ) -> None:
        stated = capped or max_length is None  # by the model's files, not by the caller
        self._path = settings.path
        self.max_length = max_length or settings.max_length
        with _no_panic(settings.path):
            import tokenizers

            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(settings.path))
            if settings.own_truncation and (own := self._tokenizer.truncation) is not None:
                self.max_length = max_length or own["max_length"]
                settings = settings._replace(truncation_side=str(own["direction"]).lower())
            padding = self._tokenizer.padding
            self._tokenizer.no_padding()
            if settings.rules is not None:
                from fastrank.engine import tokenizer_classes  # few models need it

                tokenizer_classes.apply(self._tokenizer, settings.rules)
            named = [token for token in settings.special if self._tokenizer.token_to_id(token) is not None]
            self._tokenizer.add_special_tokens(named)
            self._strip, self._types, self._side = settings.strip, settings.types, settings.truncation_side
            if settings.lowercase:
                steps = [tokenizers.normalizers.Lowercase(), self._tokenizer.normalizer]
                self._tokenizer.normalizer = tokenizers.normalizers.Sequence(
                    [step for step in steps if step is not None]
                )
            self._adds_special = settings.special_tokens
            self._cuts_characters = settings.cut_characters
            self._dropped = _unknown(self._tokenizer) if settings.drop_unknown else None
            special = self._tokenizer.num_special_tokens_to_add(is_pair=pairs) if self._adds_special else 0
            special += reserved
            if self.max_length < special + (2 if pairs else 1):
                what = "a pair of texts" if pairs else "text"
                reason = f"leaves no room for {what}: this model adds {special} special tokens"
                if stated:
                    raise ModelLoadError(
                        f"{settings.path.parent}: its files or its entry state a limit of {self.max_length} tokens, "
                        f"which {reason}. Give a larger max_length"
                    )
                raise ValueError(f"max_length={self.max_length} {reason}")
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
                self._other.enable_truncation(self._room, direction=self._side)
            self._tokenizer.enable_truncation(self._room, strategy=truncation, direction=self._side)
            for each in filter(None, (self._tokenizer, self._other)):
                each.encode_special_tokens = settings.split_special or not special_tokens_in_text
            self.pad_id = _pad_id(settings, self._tokenizer, padding)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._cut = max(_SHORTEST_CUT, self.max_length * _CHARACTERS_A_TOKEN)

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of each text or pair, special ones included: one to `max_length`, less those that are reserved.

        Each says whether its text was cut.
        """
        texts = [_stripped(text) for text in texts] if self._strip else texts
        whole = texts
        if self._cuts_characters:
            texts = [self._without_end(text) for text in texts]
        shortened = [self._shortened(text) for text in texts]
        encodings = self._encoded(shortened)
        for position, text in enumerate(texts):
            if isinstance(text, str) and len(encodings[position]) < self._room and shortened[position] is not text:
                encodings[position] = self._encoded([self._beginning(text)])[0]
        return [
            self._tokens(
                encoding,
                pair=isinstance(text, tuple),
                cut=text is not given
                or (len(encoding) >= self._room and self._is_cut(encoding, text, whole=beginning is text)),
            )
            for encoding, text, beginning, given in zip(encodings, texts, shortened, whole, strict=True)
        ]

    def prompt_length(self, prompt: str) -> int:
        """How many tokens of a text are those of a prompt before it, with what stands before any text.

        Measured as sentence-transformers does: the prompt's own tokens, without a special one at the end. 0: no prompt.
        """
        if not prompt:
            return 0
        ids = self.encode([prompt])[0].ids
        return len(ids) - (int(ids[-1]) in self.special_ids)

    def lengths(self, texts: Sequence[Text]) -> list[int]:
        """The number of tokens of each text or pair, special ones included, not truncated; 1 at least."""
        texts = [_stripped(text) for text in texts] if self._strip else texts
        with _no_panic("the tokenizer"):
            encodings = self._untruncated.encode_batch_fast(texts, add_special_tokens=self._adds_special)
        return [len(self._tokens(encoding, pair=False, cut=False).ids) for encoding in encodings]

    def room(self, text: Text = "") -> int:
        """How many more tokens fit beside those of a text, or of a pair, and the special ones; 0 or less: none."""
        with _no_panic("the tokenizer"):
            used = self._untruncated.encode_batch_fast([text], add_special_tokens=self._adds_special)
        return self._room - len(used[0])

    def placed(self, text: str, *, special: bool) -> Placed:
        """The tokens of a text and where they stand in it, not truncated.

        Args:
            text: any text.
            special: with special tokens, if the model has them.
        """
        with _no_panic("the tokenizer"):
            encoding = self._untruncated.encode(text, add_special_tokens=special and self._adds_special)
        placed = Placed(
            np.asarray(encoding.ids, np.int32),
            np.asarray(encoding.offsets, np.int64).reshape(-1, 2),
            np.asarray(encoding.special_tokens_mask, bool),
        )
        if self._dropped is None:
            return placed
        kept = placed.ids != self._dropped
        return Placed(*(each[kept] for each in placed))

    def is_truncated(self, text: Text) -> bool:
        """Whether a text, or pair, has more tokens than the limit, so that `encode` truncates it."""
        if self._cuts_characters and self._without_end(text) is not text:
            return True
        cut = self.max_length * _USUAL_CHARACTERS  # which tells, for most texts
        while True:
            beginning = _cut(text, cut) if isinstance(text, str) else (_cut(text[0], cut), _cut(text[1], cut))
            if self._encoded([beginning])[0].overflowing:
                return True
            if beginning == text:
                return False
            cut *= 8

    def spans(self, text: str, *, special: bool) -> list[Span]:
        """The tokens of a text and where they stand in it, not truncated.

        Args:
            text: any text.
            special: with special tokens.
        """
        with _no_panic("the tokenizer"):
            encoding = self._untruncated.encode(text, add_special_tokens=special)
        return [
            Span(token_id, token, bool(is_special), start, stop)
            for token_id, token, is_special, (start, stop) in zip(
                encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
            )
        ]

    def located(self, text: str) -> list[Span]:
        """The tokens that `encode` makes of a text, and where they stand in it: truncated, special ones included."""
        stripped = text.strip() if self._strip else text
        part = str(self._shortened(stripped))
        with _no_panic("the tokenizer"):
            encoding = self._tokenizer.encode(part, add_special_tokens=self._adds_special)
            if len(encoding) < self._room and part != stripped:  # of a megabyte of spaces, the beginning is nothing
                part = stripped
                encoding = self._tokenizer.encode(part, add_special_tokens=self._adds_special)
        before = len(text) - len(text.lstrip()) if self._strip else 0
        if self._side == "left":
            before += len(stripped) - len(part)
        spans = [
            Span(token_id, token, bool(special), start + before, stop + before)
            for token_id, token, special, (start, stop) in zip(
                encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
            )
            if self._adds_special or token_id != self._dropped
        ]
        return spans or [Span(self.pad_id, "", True, 0, 0)]

    def _is_cut(self, encoding: tokenizers.Encoding, text: Text, *, whole: bool) -> bool:
        """Whether a text that has as many tokens as there may be has more; `whole`: all of it was encoded."""
        return bool(encoding.overflowing) or (not whole and self.is_truncated(text))

    def _without_end(self, text: Text) -> Text:
        """A text as model2vec cuts it, before its tokens are counted."""
        if isinstance(text, tuple) or len(text) <= self.max_length:
            return text
        end = self.max_length * self._median_length
        return text[:end] if len(text) > end else text

    @cached_property
    def _median_length(self) -> int:
        """The median length of the vocabulary's tokens, in characters."""
        return int(np.median([len(token) for token in self._tokenizer.get_vocab()]))

    def _shortened(self, text: Text) -> Text:
        """A huge text's beginning, which most likely has more tokens than are used; of a pair, those that surely have.

        Truncating 10 MB to 512 tokens takes `tokenizers` 11 seconds and 1.3 GB; with the rest cut off before, nothing.
        """
        if isinstance(text, str):
            return text if len(text) <= self._cut else self._part(text, self._cut)
        if self._side == "left":  # rare
            return text
        if max(map(len, text)) > self._cut:
            text = self._shortened_pair(text)
        return self._trimmed(text) if min(map(len, text)) > 4 * self._room else text

    def _part(self, text: str, cut: int) -> str:
        """About `cut` characters of a text: the beginning, or the end where that is what truncation leaves."""
        return _cut(text, cut) if self._side == "right" else _cut(text[::-1], cut)[::-1]

    def _shortened_pair(self, pair: tuple[str, str]) -> tuple[str, str]:
        """The beginnings of a pair's texts: how much of each is used depends on the other's length."""
        texts = [text if len(text) <= self._cut else self._without_excess(text) for text in pair]
        ends = [len(_cut(text, self._cut)) for text in texts]
        while (side := self._unsure(texts, ends)) is not None:
            ends[side] = len(_cut(texts[side], ends[side] * 2))
        return texts[0][: ends[0]], texts[1][: ends[1]]

    def _trimmed(self, pair: tuple[str, str]) -> tuple[str, str]:
        """Two long texts without most of the tokens that are not used; the longer one stays the longer one.

        `tokenizers` keeps what it truncates, for pairs each remainder of one text with each of the other.
        """
        with _no_panic("the tokenizer"):
            encodings = [self._untruncated.encode(text, add_special_tokens=False) for text in pair]
        shorter = min((0, 1), key=lambda side: len(encodings[side]))
        ends, wanted = [0, 0], self._room
        for side in (shorter, 1 - shorter):
            last = _end_of_word(encodings[side], wanted)
            ends[side] = encodings[side].offsets[last - 1][1] if last < len(encodings[side]) else len(pair[side])
            wanted = max(self._room, last + (len(encodings[1 - shorter]) > len(encodings[shorter])))
        return pair[0][: ends[0]], pair[1][: ends[1]]

    def _unsure(self, texts: Sequence[str], ends: Sequence[int]) -> int | None:
        """Which text of a pair must be cut later: it has fewer tokens than are used, or seems to be the shorter one.

        Where two long texts share an odd number of tokens, the longer one gets the odd token. Which of two texts of
        more than a million characters is longer is judged by their beginnings.
        """
        counts = [self._count(text[:end]) for text, end in zip(texts, ends, strict=True)]
        for side in (0, 1):
            if ends[side] == len(texts[side]):
                continue
            seems_shorter = counts[side] <= counts[1 - side] and ends[side] < _MOST_COMPARED
            if counts[side] < self._room or seems_shorter:
                return side
        return None

    def _count(self, text: str) -> int:
        """Tokens of a text that is not truncated, special ones left out."""
        with _no_panic("the tokenizer"):
            return len(self._untruncated.encode(text, add_special_tokens=False))

    @cached_property
    def _untruncated(self) -> tokenizers.Tokenizer:
        """The same tokenizer without a limit, which only pairs with a huge text need."""
        copied = type(self._tokenizer).from_str(self._tokenizer.to_str())
        copied.no_truncation()
        copied.encode_special_tokens = self._tokenizer.encode_special_tokens
        return copied

    def _beginning(self, text: str) -> str:
        """The beginning (or end) of a text of few tokens, such as a megabyte of spaces, that has enough of them."""
        text, cut = self._without_excess(text), self._cut
        while cut < len(text):
            beginning = self._part(text, cut)
            if self._fills(beginning):
                return beginning
            cut *= 8
        return text

    def _fills(self, text: str) -> bool:
        """Whether a text has at least as many tokens as are used."""
        with _no_panic("the tokenizer"):
            return len(self._tokenizer.encode(text, add_special_tokens=False)) >= self._room

    def _without_excess(self, text: str) -> str:
        """A text without characters that leave its tokens as they are.

        BERT's tokenizers make one [UNK] of a word of any length above a limit, and nothing of white space.
        """
        if self._longest_word is None:
            return text
        text = re.sub(rf"([{_LETTERS}]{{{self._longest_word + 1}}})[{_LETTERS}]+", r"\1", text)
        return re.sub(r"([ \t\r\n\u200b])\1+", r"\1", text)

    @cached_property
    def _longest_word(self) -> int | None:
        """Characters of a word that is not [UNK], for BERT's tokenizers; None: another kind."""
        parts = json.loads(self._tokenizer.to_str())
        kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
        longest = parts["model"].get("max_input_chars_per_word")
        if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or not isinstance(longest, int):
            return None
        added = [token["content"] for token in parts["added_tokens"]]
        return longest if all(len(token) <= longest and not token.isspace() for token in added) else None

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

    def _tokens(self, encoding: tokenizers.Encoding, *, pair: bool, cut: bool) -> Tokens:
        if not self._adds_special:
            kept = [token_id for token_id in encoding.ids if token_id != self._dropped]
            return Tokens(self._int32(kept or [self.pad_id]), attended=len(kept), cut=cut)
        ids = self._int32(encoding.ids or [self.pad_id])
        types = np.asarray(encoding.type_ids or [0], np.int32) if pair and self._types else None
        return Tokens(ids, types, cut=cut)

    def _int32(self, ids: list[int]) -> np.ndarray[Any, np.dtype[np.int32]]:
        found = np.asarray(ids, np.uint32).view(np.int32)  # ids in a file are unsigned
        if found.min() < 0:
            raise ModelLoadError(f"{self._path} gives a token the id {max(ids)}: no vocabulary is that large")
        return found

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


def _stripped(text: Text) -> Text:
    return (text[0].strip(), text[1].strip()) if isinstance(text, tuple) else text.strip()


def _end_of_word(encoding: tokenizers.Encoding, wanted: int) -> int:
    """How many tokens of an encoding end where a word does: `wanted`, or a few more."""
    words = encoding.word_ids
    while wanted < len(words) and words[wanted] == words[wanted - 1]:
        wanted += 1
    return min(wanted, len(words))


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
    native_calls.refuse()  # with its own error
    try:
        with native_calls:
            yield
    except (ModelLoadError, ValueError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelLoadError(f"{what} cannot be used: {error}") from error
        raise
