"""What the JSON files beside a tokenizer.json say about using it: limit, padding, lower case, special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models.config import MAX_INTEGER, Config, read_json

_FALLBACK_LIMIT = 512
_STATIC = "0_StaticEmbedding"  # where sentence-transformers keeps a static model
_STATIC_LIMIT = 65_536  # which has no limit of its own
_ENDLESS = 1_000_000  # transformers writes 10**30 for "no limit"
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")  # whose first two positions no token has


class TokenizerSettings(NamedTuple):
    """How a model's texts are tokenized, as its folder says.

    Attributes:
        path: tokenizer.json.
        max_length: tokens a text may have, special ones included.
        positions: how many tokens the model has positions for; None if config.json does not say.
        lowercase: texts are lower-cased, whatever tokenizer.json does.
        special_tokens: [CLS], [SEP] and the like are added; static embeddings have none.
        drop_unknown: the unknown token is left out, as model2vec does.
        pad_token_id: of config.json; None if it does not say.
        pad_tokens: candidates for the padding token, in order.
    """

    path: Path
    max_length: int
    positions: int | None
    lowercase: bool
    special_tokens: bool
    drop_unknown: bool
    pad_token_id: int | None
    pad_tokens: tuple[str, ...]


def read(folder: Path) -> TokenizerSettings:
    """The settings of the tokenizer in a model's folder.

    The limit is sentence-transformers' `max_seq_length`, else the tokenizer's `model_max_length`, but no more than the
    model's positions; else 512. Not tokenizer_config.json's `max_length`: many exports have a 128 left from training.

    Raises:
        ModelLoadError: there is no tokenizer.json, or a file is damaged.
    """
    path = next(filter(Path.is_file, (folder / "tokenizer.json", folder / _STATIC / "tokenizer.json")), None)
    if path is None:
        raise ModelLoadError(f"There is no tokenizer.json in {folder}. fastrank needs the model's tokenizer.json.")
    config, tokenizer_config, sentence_bert = (
        _object(folder / name) for name in ("config.json", "tokenizer_config.json", "sentence_bert_config.json")
    )
    model2vec = config.get("model_type") == "model2vec"
    static = model2vec or _is_static(folder / "modules.json")
    positions = _positions(config)
    stated = (sentence_bert.get("max_seq_length"), tokenizer_config.get("model_max_length"))
    limits = [int(n) for n in stated if isinstance(n, (int, float)) and 0 < n < _ENDLESS][:1]
    unstated = _STATIC_LIMIT if static and not model2vec else _FALLBACK_LIMIT
    pad_token = tokenizer_config.get("pad_token")
    if isinstance(pad_token, dict):
        pad_token = pad_token.get("content")
    return TokenizerSettings(
        path,
        max_length=min([*limits, *filter(None, [positions])], default=unstated),
        positions=positions,
        lowercase=sentence_bert.get("do_lower_case") is True,
        special_tokens=not static,
        drop_unknown=model2vec,
        pad_token_id=_pad_token_id(Config(folder / "config.json", config)),
        pad_tokens=(*([pad_token] if isinstance(pad_token, str) else []), "[PAD]", "<pad>"),
    )


def _pad_token_id(config: Config) -> int | None:
    """The id that config.json gives the padding token; some decoders write -1 for none."""
    token_id = config.integer("pad_token_id", -1, low=-1, high=config.integer("vocab_size", MAX_INTEGER) - 1)
    return None if token_id == -1 else token_id


def _positions(config: dict[str, Any]) -> int | None:
    # NomicBERT's code calls the length it was trained with by the first name.
    positions = config.get("n_positions", config.get("max_position_embeddings"))
    if type(positions) is not int or not 0 < positions < _ENDLESS:
        return None
    return positions - 2 if config.get("model_type") in _OFFSET_POSITIONS else positions


def _is_static(path: Path) -> bool:
    modules = read_json(path) if path.exists() else None
    first = modules[0] if isinstance(modules, list) and modules else None
    return isinstance(first, dict) and str(first.get("type")).endswith("StaticEmbedding")


def _object(path: Path) -> dict[str, Any]:
    values = read_json(path) if path.exists() else {}
    return values if isinstance(values, dict) else {}
