"""From a pair to the tokens of its prompt, for rerankers that are language models."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fastrank.engine.batching import Tokens
from fastrank.engine.tokenizer import Text, Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models.pair_prompt import PairPrompt
from fastrank.models.tokenization import TokenizerSettings

_FILLERS = ("0", "1 2 3 4")  # as sentence-transformers has them: what ends alike with both is the template's
_PRIVATE = range(0xE000, 0xF900)  # characters that no vocabulary has


class PromptTokenizer(Tokenizer):
    """A tokenizer of pairs in a prompt. Never changed after construction, so threads may share it.

    What is too long loses the end of the document; what the template adds after it is written over the last tokens
    that are left, as sentence-transformers does.

    Args:
        settings: what the model's folder says.
        prompt: the prompt.
        max_length: as `Tokenizer`.
        capped: as `Tokenizer`.
        special_tokens_in_text: whether "<|im_end|>" in a text is the special token, or plain text. It always is where
            the template has it.

    Raises:
        ModelLoadError: as `Tokenizer`.
        ValueError: as `Tokenizer`.
    """

    def __init__(
        self,
        settings: TokenizerSettings,
        prompt: PairPrompt,
        max_length: int | None = None,
        *,
        capped: bool = False,
        special_tokens_in_text: bool = True,
    ) -> None:
        of_text = settings._replace(special_tokens=False, drop_unknown=False, strip=False)
        super().__init__(of_text, max_length, capped=capped)
        self._in_text = special_tokens_in_text
        self._put_into(prompt)
        if self.max_length <= len(self._ending):
            raise ValueError(
                f"max_length={self.max_length} leaves no room for a text: the prompt's end alone has "
                f"{len(self._ending)} tokens"
            )

    def instructed(self, instruction: str) -> PromptTokenizer:
        """The tokenizer of a prompt with another instruction.

        Raises:
            ValueError: the prompt has no place for one.
        """
        plain = self._prompt._replace(instruction="")
        instructed = plain._replace(instruction=instruction)
        if instruction and instructed.text("", "") == plain.text("", ""):
            raise ValueError("instruction: the prompt of this model has no place for an instruction")
        other = copy.copy(self)
        other._put_into(instructed)  # noqa: SLF001 - a copy of its own
        return other

    def _put_into(self, prompt: PairPrompt) -> None:
        self._prompt = prompt
        self._ending = self._end() if prompt.restores_end else []

    def prompt(self, pair: tuple[str, str]) -> str:
        """The text that the model reads for a (query, document) pair, before it is truncated."""
        return self._prompt.text(*pair)

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of the prompt of each (query, document) pair: one to `max_length`."""
        pairs = [text for text in texts if isinstance(text, tuple)]
        if self._in_text:
            encoded = super().encode([self.prompt(pair) for pair in pairs])
        else:
            encoded = [self._as_letters(pair) for pair in pairs]
        return [self._with_end(tokens) for tokens in encoded]

    def lengths(self, texts: Sequence[Text]) -> list[int]:
        """The number of tokens of the prompt of each pair, not truncated."""
        return super().lengths([self.prompt(text) if isinstance(text, tuple) else text for text in texts])

    def room(self, text: Text = "") -> int:
        """How many more tokens fit into the prompt of a pair."""
        return super().room(self.prompt(text) if isinstance(text, tuple) else text)

    def is_truncated(self, text: Text) -> bool:
        """Whether the prompt of a pair has more tokens than the limit."""
        return super().is_truncated(self.prompt(text)) if isinstance(text, tuple) else super().is_truncated(text)

    def _with_end(self, tokens: Tokens) -> Tokens:
        if not self._ending or len(tokens.ids) < self.max_length:
            return tokens
        ids = tokens.ids.copy()
        ids[-len(self._ending) :] = self._ending
        return tokens._replace(ids=ids)

    def _end(self) -> list[int]:
        """The tokens after the document: what prompts with different texts have in common at their ends."""
        shorter, longer = (
            [token.id for token in self.spans(self._prompt.text(filler, filler), special=False)] for filler in _FILLERS
        )
        most, count = min(len(shorter), len(longer)), 0
        while count < most and shorter[-1 - count] == longer[-1 - count]:
            count += 1
        return shorter[len(shorter) - count :] if count < most else []

    # -- special tokens in texts, read as their letters ---------------------------------------------------------------

    @cached_property
    def _special(self) -> dict[str, int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: token_id for token_id, token in added.items() if token.special}

    @cached_property
    def _letters(self) -> Tokenizer:
        """The same tokenizer, which reads special tokens as letters."""
        other = copy.copy(self)
        other.__dict__.pop("_untruncated", None)
        other._read_letters()  # noqa: SLF001 - a copy of its own
        return other

    def _read_letters(self) -> None:
        self._tokenizer = type(self._tokenizer).from_str(self._tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True

    def _as_letters(self, pair: tuple[str, str]) -> Tokens:
        """The prompt's tokens, where only the template has special ones."""
        if not self._special:
            return super().encode([self.prompt(pair)])[0]
        mark = next((char for char in map(chr, _PRIVATE) if char not in pair[0] and char not in pair[1]), "")
        if not mark:
            raise ModelLoadError("a text has all 6,400 private characters of Unicode")
        names = sorted(self._special, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, names)))
        query, document = (pattern.sub(lambda found: f"{mark}{names.index(found[0])}{mark}", text) for text in pair)
        ids = list[int]()
        rest = self._prompt.text(query, document)
        while rest and len(ids) < self._room:
            found = pattern.search(rest)
            text = rest[: found.start()] if found else rest
            text = re.sub(f"{mark}(\\d+){mark}", lambda each: names[int(each[1])], text)
            if text:
                ids += Tokenizer.encode(self._letters, [text])[0].ids.tolist()
            if found:
                ids.append(self._special[found[0]])
            rest = rest[found.end() :] if found else ""
        cut = bool(rest) or len(ids) > self._room
        return Tokens(np.asarray(ids[: self._room] or [self.pad_id], np.int32), cut=cut)
