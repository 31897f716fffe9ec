"""From text to token ids. The only module that imports `tokenizers`.

Truncation and padding are always set here, whatever tokenizer.json says: published files carry padding to 128 tokens,
a limit of 128 under a model that takes 256, or none at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrank.engine.batching import Tokens
from fastrank.errors import ModelLoadError

if TYPE_CHECKING:
    import tokenizers

Text: TypeAlias = "str | tuple[str, str]"

_FALLBACK_LIMIT = 512
_STATIC = "0_StaticEmbedding"  # where sentence-transformers keeps a static model
_STATIC_LIMIT = 65_536  # which has none of its own
_ENDLESS = 1_000_000  # transformers writes 10**30 for "no limit"
_CHARACTERS_A_TOKEN = 64  # far above what any vocabulary spends on a token
_SHORTEST_CUT = 16_384


class Tokenizer:
    """A tokenizer.json with a limit of our own. Never changed after construction, so threads may share it.

    Args:
        folder: holds tokenizer.json, and config.json or tokenizer_config.json where it has them.
        max_length: tokens a text may have, special ones included; what is longer is cut. None: what the folder says.
        truncation: for pairs: "longest_first" cuts the longer of the two, token by token; "only_second" leaves the
            first whole, unless it alone is too long.
        capped: lower `max_length` to the positions the model has, instead of raising an error.
        reserved: how many of the `max_length` tokens are left for the caller to add.
        special_tokens_in_text: whether "[SEP]" in a text is the special token, or plain text.

    Raises:
        ModelLoadError: tokenizer.json is missing, damaged or hostile.
        ValueError: `max_length` is more than the model can take, or leaves no room beside the special tokens.
    """

    def __init__(
        self,
        folder: Path,
        max_length: int | None = None,
        truncation: str = "longest_first",
        *,
        capped: bool = False,
        reserved: int = 0,
        special_tokens_in_text: bool = True,
    ) -> None:
        path = next(filter(Path.is_file, (folder / "tokenizer.json", folder / _STATIC / "tokenizer.json")), None)
        if path is None:
            raise ModelLoadError(f"There is no tokenizer.json in {folder}. fastrank needs the model's tokenizer.json.")
        settings = _Settings(folder)
        self.max_length = max_length or settings.limit()
        with _no_panic(path):
            import tokenizers

            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(path))
            padding = self._tokenizer.padding
            self._tokenizer.no_padding()
            if settings.lowers():
                steps = [tokenizers.normalizers.Lowercase(), self._tokenizer.normalizer]
                self._tokenizer.normalizer = tokenizers.normalizers.Sequence(
                    [step for step in steps if step is not None]
                )
            self._adds_special = not settings.static
            self._dropped = _unknown(self._tokenizer) if settings.model2vec else None
            special = self._tokenizer.num_special_tokens_to_add(is_pair=False) if self._adds_special else 0
            special += reserved
            if self.max_length <= special:
                raise ValueError(
                    f"max_length={self.max_length} leaves no room for text: this model adds {special} special tokens"
                )
            if (positions := settings.positions()) and self.max_length > positions and capped:
                self.max_length = positions
            elif positions and self.max_length > positions:
                raise ValueError(f"max_length={self.max_length} is more than this model has positions: {positions}")
            self._room = self.max_length - reserved
            self._other: tokenizers.Tokenizer | None = None
            if truncation != "longest_first":
                self._other = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
                self._other.enable_truncation(self._room)
            self._tokenizer.enable_truncation(self._room, strategy=truncation)
            for each in filter(None, (self._tokenizer, self._other)):
                each.encode_special_tokens = not special_tokens_in_text
            self.pad_id = settings.pad_id(self._tokenizer, padding)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
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
            known = [number for number in encoding.ids if number != self._dropped]
            return Tokens(np.asarray(known or [self.pad_id], np.int32), attended=len(known))
        ids = np.asarray(encoding.ids or [self.pad_id], np.int32)
        return Tokens(ids, np.asarray(encoding.type_ids or [0], np.int32) if pair else None)

    def number(self, token: str) -> int | None:
        """The id of a token of the vocabulary; None if it has no such token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def first_number(self, text: str) -> int | None:
        """The id of the first token of a text, special ones left out; None if it has none."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return int(ids[0]) if ids else None

    @cached_property
    def pieces(self) -> list[str | None]:
        """The vocabulary by id; None where an id has no token."""
        vocabulary = self._tokenizer.get_vocab()
        found: list[str | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
        for piece, number in vocabulary.items():
            found[number] = piece
        return found

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


class _Settings:
    """What the JSON files beside a tokenizer say about its limit and its padding."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            name: _read_json(folder / name)
            for name in ("config.json", "tokenizer_config.json", "sentence_bert_config.json")
        }
        modules = _read_any(folder / "modules.json")
        first = modules[0] if isinstance(modules, list) and modules else None
        self.model2vec = self._files["config.json"].get("model_type") == "model2vec"
        self.static = self.model2vec or (isinstance(first, dict) and str(first.get("type")).endswith("StaticEmbedding"))

    def limit(self) -> int:
        """sentence-transformers' limit, else the tokenizer's, but no more than the model's positions; else 512.

        Not tokenizer_config.json's `max_length`: in many exports that is a 128 left over from training.
        """
        stated = (
            self._files["sentence_bert_config.json"].get("max_seq_length"),
            self._files["tokenizer_config.json"].get("model_max_length"),
        )
        limits = [int(n) for n in stated if isinstance(n, (int, float)) and 0 < n < _ENDLESS]
        unstated = _STATIC_LIMIT if self.static and not self.model2vec else _FALLBACK_LIMIT
        return min([*limits[:1], *filter(None, [self.positions()])], default=unstated)

    def lowers(self) -> bool:
        """Whether texts are to be in lower case, whatever tokenizer.json does."""
        return self._files["sentence_bert_config.json"].get("do_lower_case") is True

    def positions(self) -> int | None:
        """How many tokens the model can tell the places of; None if the config does not say."""
        config = self._files["config.json"]
        # NomicBERT's code calls the length it was trained with by the first name.
        positions = config.get("n_positions", config.get("max_position_embeddings"))
        if not isinstance(positions, int) or not 0 < positions < _ENDLESS:
            return None
        # Of the RoBERTa family's, the first two are never a token's.
        return (
            positions - 2 if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet") else positions
        )

    def pad_id(self, tokenizer: tokenizers.Tokenizer, padding: dict[str, Any] | None) -> int:
        """The padding token of tokenizer.json, of the config, or of tokenizer_config.json; 0 if nothing names one."""
        if padding is not None:
            return int(padding["pad_id"])
        if isinstance(number := self._files["config.json"].get("pad_token_id"), int):
            return number
        token = self._files["tokenizer_config.json"].get("pad_token")
        if isinstance(token, dict):
            token = token.get("content")
        for name in (token, "[PAD]", "<pad>"):
            if isinstance(name, str) and (found := tokenizer.token_to_id(name)) is not None:
                return int(found)
        return 0  # masked anyway


def _unknown(tokenizer: tokenizers.Tokenizer) -> int | None:
    """The id of the unknown token, of which model2vec makes nothing; None if there is none."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        return None if model.unk_token is None else tokenizer.token_to_id(model.unk_token)
    found: int | None = json.loads(tokenizer.to_str())["model"].get("unk_id")  # of Unigram
    return found


def _read_json(path: Path) -> dict[str, Any]:
    content = _read_any(path)
    return content if isinstance(content, dict) else {}


def _read_any(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


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
