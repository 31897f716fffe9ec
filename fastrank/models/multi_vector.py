"""What the folder of a MultiVectorEncoder says (sentence-transformers 6): modules, prompts, lengths, query expansion.

Unlike PyLate's folders, whose masking and normalization stand in no file, these list every module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models import encoder_config, fields, tokenization
from fastrank.models.config import Config
from fastrank.models.modules import Step
from fastrank.models.sentence_transformers import (
    TOKENS,
    Module,
    hidden_size,
    modules,
    steps,
    unsupported,
)

_MASK, _POOLING = "MultiVectorMask", "HierarchicalTokenPooling"
_OF_TOKENS = ("Dense", "Normalize", "Dropout")
_SUPPORTED = f"Transformer, {', '.join(_OF_TOKENS)}, {_MASK}, {_POOLING}"
_TASKS = ("query", "document")
_LONGEST = 10_000_000
_OWN_CLASS: Final = "MultiVectorEncoder"


class Expansion(NamedTuple):
    """What short queries are filled up with.

    Attributes:
        length: number of tokens to expand to.
        token: with this one.
        attend: whether those tokens are attended to.
        fixed: whether longer queries are cut to `length`.
    """

    length: int
    token: str
    attend: bool
    fixed: bool


class Skiplist(NamedTuple):
    """Tokens that leave no vector, in texts of these tasks ("query", "document")."""

    tokens: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


class TokenPooling(NamedTuple):
    """Vectors of a text that are alike become their mean, in texts of these tasks."""

    factor: float
    protected: int
    normalize: bool
    tasks: tuple[str, ...]


class MultiVector(NamedTuple):
    """A model with one vector per token.

    Attributes:
        dim: the size of a vector.
        query_prompt: put before queries, as text.
        document_prompt: put before documents.
        query_length: tokens a query may have; None: as the tokenizer's files say.
        document_length: tokens a document may have; None: the same.
        expansion: what short queries are filled up with; None: they are not.
        counted: whether tokens that fill up leave vectors even if nothing attends to them.
        steps: modules after the transformer.
        skiplist: tokens that leave no vector.
        pooling: fewer vectors; None: all.
        after_pooling: modules after that.
    """

    dim: int
    query_prompt: str
    document_prompt: str
    query_length: int | None
    document_length: int | None
    expansion: Expansion | None
    counted: bool
    steps: tuple[Step, ...]
    skiplist: Skiplist
    pooling: TokenPooling | None
    after_pooling: tuple[Step, ...]


def is_multi_vector(folder: Path) -> bool:
    """Whether a MultiVectorEncoder saved the folder: it says so, or has one of its modules."""
    config = Config.read_if_present(folder / encoder_config.ENCODER)
    stated = config.string("model_type", default="")
    if stated:
        return stated == _OWN_CLASS
    return any(module.kind in (_MASK, _POOLING) for module in modules(folder))


def read(folder: Path) -> MultiVector:
    """The settings of the model in a folder.

    Raises:
        ModelLoadError: a file is missing or damaged, or a module, field or value cannot be applied.
    """
    first, *rest = modules(folder)
    if first.kind != "Transformer":
        raise unsupported(folder, first.kind, _SUPPORTED)
    for module in rest:
        if module.kind not in (*_OF_TOKENS, _MASK, _POOLING):
            raise unsupported(folder, module.kind, _SUPPORTED)
    home = first.folder
    transformer, encoder = encoder_config.transformer(home), encoder_config.encoder(folder, _OWN_CLASS)
    expansion = _expansion(home)
    before, pooling, after = _around_pooling(folder, rest)
    made, dim = steps(
        [module for module in before if module.kind in _OF_TOKENS], hidden_size(home), TOKENS, dense_reads=TOKENS
    )
    made_after, dim = steps([module for module in after if module.kind in _OF_TOKENS], dim, TOKENS, dense_reads=TOKENS)
    masks = [module.folder for module in before if module.kind == _MASK]
    if len(masks) > 1 or any(module.kind == _MASK for module in after):
        raise ModelLoadError(f"{folder / 'modules.json'}: {_MASK} is supported once, and before {_POOLING}")
    if not dim:
        raise ModelLoadError(f"{home / 'config.json'} does not say the size of a hidden state")
    return MultiVector(
        dim,
        encoder.prefixes.query,
        encoder.prefixes.passage,
        _query_length(transformer.query_length, expansion),
        transformer.document_length,
        expansion,
        counted=bool(masks),
        steps=tuple(made),
        skiplist=_skiplist(masks[0]) if masks else Skiplist(),
        pooling=pooling,
        after_pooling=tuple(made_after),
    )


def _around_pooling(folder: Path, rest: list[Module]) -> tuple[list[Module], TokenPooling | None, list[Module]]:
    """The modules before token pooling, its settings, and the modules after it."""
    places = [number for number, module in enumerate(rest) if module.kind == _POOLING]
    if not places:
        return rest, None, []
    if len(places) > 1:
        raise ModelLoadError(f"{folder / 'modules.json'}: {_POOLING} is supported once")
    (place,) = places
    config = Config.read_if_present(rest[place].folder / "config.json").known(fields.TOKEN_POOLING)
    pooling = TokenPooling(
        config.number("pool_factor", 1, low=1, high=1e6),
        config.integer("num_protected_tokens", 1, low=0),
        config.flag("normalize_embeddings", default=False),
        _tasks(config, "tasks"),
    )
    return rest[:place], pooling, rest[place + 1 :]


def _query_length(stated: int | None, expansion: Expansion | None) -> int | None:
    if expansion is None:
        return stated
    if expansion.fixed:
        return expansion.length
    return stated and max(stated, expansion.length)


def _expansion(folder: Path) -> Expansion | None:
    file = encoder_config.transformer_file(folder)
    config = file.section("query_expansion")
    if not config.fields():
        return None
    for field in config.fields():
        if field not in ("strategy", "attend", "token", "length"):
            raise config.error(field, "fastrank does not know this field, so results might be wrong")
    length = config.integer("length", high=_LONGEST)
    if file.integer("query_length", length, high=_LONGEST) < length:
        raise file.error("query_length", f"query_expansion fills queries up to {length} tokens")
    return Expansion(
        length,
        config.string("token", default="") or expansion_token(folder),
        config.flag("attend", default=False),
        config.choice("strategy", ["fixed", "min"]) == "fixed",
    )


def expansion_token(folder: Path, *, padding: bool = False) -> str:
    """The token that fills queries up: the mask; a decoder's end of text; with `padding` else the padding.

    Raises:
        ModelLoadError: tokenizer_config.json names none of them.
    """
    path = folder / "tokenizer_config.json"
    config = Config.read(path)
    names = ("mask_token", "eos_token", *(["pad_token"] if padding else []))
    token = next(filter(None, (tokenization.special_token(config, name) for name in names)), None)
    if token is None:
        raise ModelLoadError(f"{path} names no {', '.join(names[:-1])} or {names[-1]} to fill queries up with")
    return token


def _skiplist(folder: Path) -> Skiplist:
    config = Config.read_if_present(folder / "config.json").known(fields.MULTI_VECTOR_MASK)
    return Skiplist(tuple(config.strings("skiplist_words", [])), _tasks(config, "skiplist_tasks"))


def _tasks(config: Config, field: str) -> tuple[str, ...]:
    return tuple(config.choices(field, _TASKS, ["document"]))
