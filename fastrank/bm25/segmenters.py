"""Words of languages without spaces, by a segmenter that the user has installed: an analyzer's name is its package's.

A segmenter sees the whole text in NFKC. Its words are lower-cased and lose what is neither letter, mark nor number;
what is left of them are terms, to which stop words and stemmer of BM25 apply as they do to other words.
"""

from __future__ import annotations

import importlib
import logging
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from threading import Lock
from types import ModuleType
from typing import TypeAlias

from fastrank import errors
from fastrank.errors import ModelLoadError

Segmenter: TypeAlias = "Callable[[str], Iterable[str]]"


@cache
def segmenter(name: str) -> Segmenter:
    """A function from a text to its words; the process has one of each.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says what to install.
        ModelLoadError: it is, but its dictionary cannot be loaded.
    """
    segment = SEGMENTERS[name]()

    def words(text: str) -> Iterable[str]:
        # Lone surrogates and NUL, at which C libraries fail or end, separate words.
        text = text.encode("utf-8", "replace").decode().replace("\0", " ")
        return segment(unicodedata.normalize("NFKC", text))

    return words


def _jieba() -> Segmenter:
    """Chinese: words, and the shorter words inside long ones. Dictionaries that the process gives jieba count."""
    jieba = _package("jieba")
    log = logging.getLogger("jieba")
    level = log.level
    log.setLevel(logging.WARNING)  # it tells standard error how long its dictionary took
    try:
        jieba.initialize()
    finally:
        log.setLevel(level)
    cut: Segmenter = jieba.cut_for_search
    return cut


def _fugashi() -> Segmenter:
    """Japanese: the surface of each of MeCab's words, with the user's UniDic."""
    fugashi = _package("fugashi")
    try:
        tagger = fugashi.Tagger("-Owakati")
    except RuntimeError as error:
        raise ModelLoadError(
            f"fugashi finds no dictionary: {error}\nunidic-lite is one: {errors.how_to_install('fugashi')}"
        ) from error
    lock = Lock()  # a tagger has one lattice

    def words(text: str) -> list[str]:
        with lock:
            return [word.surface for word in tagger(text)]

    return words


def _pythainlp() -> Segmenter:
    """Thai: its default engine, newmm."""
    tokenize: Segmenter = _package("pythainlp.tokenize").word_tokenize
    return tokenize


def _kiwipiepy() -> Segmenter:
    """Korean: morphemes, so that a noun is the same term with any particle."""
    kiwi = _package("kiwipiepy").Kiwi()

    def words(text: str) -> list[str]:
        return [token.form for token in kiwi.tokenize(text)]

    return words


SEGMENTERS: dict[str, Callable[[], Segmenter]] = {
    "jieba": _jieba,
    "fugashi": _fugashi,
    "pythainlp": _pythainlp,
    "kiwipiepy": _kiwipiepy,
}


def _package(name: str) -> ModuleType:
    extra = name.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the package itself imports
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"analyzer={extra!r}: {error.name} is not installed. Run: {errors.how_to_install(extra)}"
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
