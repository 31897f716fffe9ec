"""What the JSON files beside a tokenizer.json say about using it: limits, class, case, special tokens, sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models.config import MAX_INTEGER, Config, is_model2vec, read_json

_FALLBACK_LIMIT = 512
_STATIC = "0_StaticEmbedding"  # where sentence-transformers keeps a static model
_STATIC_LIMIT = 65_536  # which has no limit of its own
_ENDLESS = 1_000_000  # transformers writes 10**30 for "no limit"
_LONGEST = 10**31
_MAX_TOKENIZER = 256_000_000  # bytes; those of 256,000 tokens have 35 MB
# Positions begin behind the padding token's: at `pad_token_id + 1` in RoBERTa's family, always at 2 in MPNet.
_BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert")

# Classes of transformers 5 that build their own normalizer, words and template, whatever tokenizer.json says.
BERT, MPNET, ROBERTA, XLM_ROBERTA = "bert", "mpnet", "roberta", "xlm-roberta"
_CLASSES: Final = {
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "MPNetTokenizer": MPNET,
    "RobertaTokenizer": ROBERTA,
    "XLMRobertaTokenizer": XLM_ROBERTA,
    "CamembertTokenizer": XLM_ROBERTA,
}
# The class where no file names one, by model_type.
_DEFAULT_CLASSES: Final = {
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "nomic_bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_WITH_TYPES: Final = ("BertTokenizer", "ElectraTokenizer")  # whose pairs have token types by default


class ClassRules(NamedTuple):
    """What a tokenizer class of transformers 5 builds anew; see `engine.tokenizer_classes`.

    Attributes:
        kind: "bert", "mpnet", "roberta" or "xlm-roberta".
        lowercase: BERT, MPNet: whether texts are lower-cased.
        strip_accents: BERT, MPNet: whether accents are removed; None: where texts are lower-cased.
        chinese_characters: BERT, MPNet: whether each Chinese character is a word.
        prefix_space: RoBERTa, XLM-RoBERTa: whether a space is put before the first word.
        begin: the token before a text.
        end: the token after a text.
        unknown: BERT, MPNet: the token for what the vocabulary does not have.
    """

    kind: str
    lowercase: bool
    strip_accents: bool | None
    chinese_characters: bool
    prefix_space: bool
    begin: str
    end: str
    unknown: str


class TokenizerSettings(NamedTuple):
    """How a model's texts are tokenized, as its folder says.

    Attributes:
        path: tokenizer.json.
        max_length: tokens a text may have, special ones included.
        positions: how many tokens the model has positions for; None if config.json does not say.
        lowercase: texts are lower-cased, whatever tokenizer.json does.
        special_tokens: [CLS], [SEP] and the like are added; static embeddings have none.
        drop_unknown: the unknown token is left out, as model2vec does.
        cut_characters: a text is cut after `max_length` times the median length of a token, as model2vec does.
        pad_token_id: of config.json; None if it does not say.
        pad_tokens: candidates for the padding token, in order.
        query_length: tokens a query may have; None: as `max_length`.
        document_length: tokens a passage may have; None: as `max_length`.
        truncation_side: the end of a long text that is cut off: "right" or "left".
        own_truncation: limit and side are those of tokenizer.json, as sentence-transformers' StaticEmbedding has it.
        types: whether the second text of a pair has token type 1.
        strip: whether white space at the ends of texts is removed.
        split_special: special tokens in texts are always read as their letters.
        rules: of the tokenizer's class; None: tokenizer.json is used as it is.
        special: words of the vocabulary that are special tokens, beside those of tokenizer.json.
    """

    path: Path
    max_length: int
    positions: int | None
    lowercase: bool
    special_tokens: bool
    drop_unknown: bool
    pad_token_id: int | None
    pad_tokens: tuple[str, ...]
    query_length: int | None = None
    document_length: int | None = None
    truncation_side: str = "right"
    own_truncation: bool = False
    types: bool = True
    strip: bool = False
    split_special: bool = False
    rules: ClassRules | None = None
    special: tuple[str, ...] = ()
    cut_characters: bool = False


def read(
    folder: Path, home: Path | None = None, *, registered: bool = False, messages: bool = False, table: bool = False
) -> TokenizerSettings:
    """The settings of the tokenizer in a model's folder.

    The limit is sentence-transformers' `max_seq_length`, else the tokenizer's `model_max_length`, but no more than the
    model's positions; else 512. Not tokenizer_config.json's `max_length`: many exports have a 128 left from training.

    Args:
        folder: the model's.
        home: where the files of tokenizer and transformer are; None: in `folder` itself.
        registered: the registry describes the model: its tokenizer.json is used as it is, and the folder adds limits
            and padding only. Otherwise the folder is read as sentence-transformers and transformers 5 read it.
        messages: whether the folder may ask for its chat template.
        table: each token has a weight, as SparseStaticEmbedding has it: no special tokens, no limit but a stated one.

    Raises:
        ModelLoadError: there is no tokenizer.json, a file is damaged, or one has a field that cannot be applied.
    """
    home = home or folder
    path = next(filter(Path.is_file, (home / "tokenizer.json", home / _STATIC / "tokenizer.json")), None)
    if path is None:
        raise ModelLoadError(f"There is no tokenizer.json in {home}. fastrank needs the model's tokenizer.json.")
    if (size := path.stat().st_size) > _MAX_TOKENIZER:
        raise ModelLoadError(f"{path} has {size} bytes, which no tokenizer has; at most {_MAX_TOKENIZER} are read")
    config = _object(home / "config.json")
    transformer = None
    if not registered:
        from fastrank.models import encoder_config, fields  # what the registry describes does not need them

        transformer = encoder_config.transformer(home, messages=messages)
    model2vec = is_model2vec(config)
    static = model2vec or _is_static(folder / "modules.json")
    positions = _positions(config)
    tokenizer_config, sentence_bert = (
        _object(home / name) for name in ("tokenizer_config.json", "sentence_bert_config.json")
    )
    if transformer:
        tokenizer_config |= transformer.tokenizer
    stated: tuple[Any, ...] = (
        transformer.max_length if transformer else None,
        sentence_bert.get("max_seq_length"),
        tokenizer_config.get("model_max_length"),
    )
    endless = model2vec and "max_length" in config and config["max_length"] is None
    if static and transformer:
        stated = (config.get("max_length"),) if model2vec else ()
    elif model2vec:
        stated = (config.get("max_length"), *stated)
    limits = [int(n) for n in stated if isinstance(n, (int, float)) and 0 < n < _ENDLESS][:1]
    unstated = _STATIC_LIMIT if table or endless or (static and not model2vec) else _FALLBACK_LIMIT
    settings = TokenizerSettings(
        path,
        max_length=min([*limits, *filter(None, [positions])], default=unstated),
        positions=positions,
        lowercase=sentence_bert.get("do_lower_case") is True and not (static and transformer),
        special_tokens=not (static or table),
        drop_unknown=model2vec,
        cut_characters=model2vec and not endless,
        pad_token_id=_pad_token_id(Config(home / "config.json", config)),
        pad_tokens=(*filter(None, [_token(tokenizer_config.get("pad_token"))]), "[PAD]", "<pad>"),
    )
    if transformer is None:
        return settings
    if static:
        return settings._replace(own_truncation=not model2vec)
    of_class = Config(home / "tokenizer_config.json", tokenizer_config).known(fields.TOKENIZER)
    name = _class_name(of_class, config)
    return settings._replace(
        query_length=transformer.query_length,
        document_length=transformer.document_length,
        truncation_side=of_class.choice("truncation_side", ["right", "left"], "right"),
        types="token_type_ids" in of_class.strings("model_input_names", _inputs(name)),
        strip=encoder_config.strips(folder),
        split_special=of_class.flag("split_special_tokens", default=False),
        rules=_rules(of_class, name),
        special=_special_tokens(of_class),
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
    if config.get("model_type") == "mpnet":
        return positions - 2
    if config.get("model_type") in _BEHIND_PADDING:
        pad = config.get("pad_token_id", 1)
        return max(positions - (pad if isinstance(pad, int) else 1) - 1, 1)
    return positions


def _class_name(tokenizer_config: Config, config: dict[str, Any]) -> str:
    """The class that transformers 5 takes, without "Fast"; a generic one leaves tokenizer.json as it is."""
    stated = tokenizer_config.string("tokenizer_class", default=str(config.get("tokenizer_class") or ""))
    return stated.removesuffix("Fast") or _DEFAULT_CLASSES.get(str(config.get("model_type")), "")


def _inputs(name: str) -> list[str]:
    return ["input_ids", *(["token_type_ids"] if name in _WITH_TYPES else []), "attention_mask"]


def _rules(config: Config, name: str) -> ClassRules | None:
    kind = _CLASSES.get(name)
    if kind is None:
        return None
    begin, end = ("bos_token", "eos_token") if kind == XLM_ROBERTA else ("cls_token", "sep_token")
    of_kind = _OF_BERT if kind in (BERT, MPNET) else ("add_prefix_space",)
    config.refuse_null(begin, end, *of_kind)
    begins, ends = ("[CLS]", "[SEP]") if kind == BERT else ("<s>", "</s>")
    return ClassRules(
        kind,
        lowercase=config.flag("do_lower_case", default=True),
        strip_accents=config.choice("strip_accents", [True, False, None]),
        chinese_characters=config.flag("tokenize_chinese_chars", default=True),
        prefix_space=config.flag("add_prefix_space", default=kind == XLM_ROBERTA),
        begin=special_token(config, begin, begins),
        end=special_token(config, end, ends),
        unknown=special_token(config, "unk_token", "[UNK]"),
    )


_OF_BERT: Final = ("do_lower_case", "tokenize_chinese_chars", "unk_token")


def _special_tokens(config: Config) -> tuple[str, ...]:
    """The tokens that the file names as special: transformers finds them in texts before anything else."""
    named = [special_token(config, f"{name}_token") for name in _NAMED]
    for field in ("additional_special_tokens", "extra_special_tokens"):
        value = config.value(field)
        listed = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        named += [token for token in map(_token, listed) if token]
    return tuple(dict.fromkeys(filter(None, named)))


_NAMED: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def special_token(config: Config, field: str, default: str = "") -> str:
    """A special token, which transformers before 5 writes as an object."""
    try:
        return config.string(field, default=default)
    except ModelLoadError:
        return config.section(field).string("content", default=default)


def _token(value: Any) -> str | None:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _is_static(path: Path) -> bool:
    modules = read_json(path) if path.exists() else None
    first = modules[0] if isinstance(modules, list) and modules else None
    return isinstance(first, dict) and str(first.get("type")).endswith(".StaticEmbedding")


def _object(path: Path) -> dict[str, Any]:
    values = read_json(path) if path.exists() else {}
    return values if isinstance(values, dict) else {}
