"""What classes of transformers 5 make of a tokenizer.json: their own normalizer, words and special tokens.

`BertTokenizer(do_lower_case=False)`, say, keeps the case of texts even where tokenizer.json lowers it: transformers
takes vocabulary and merges from the file and builds the rest anew.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from fastrank.errors import ModelLoadError
from fastrank.models import tokenization
from fastrank.models.tokenization import ClassRules

if TYPE_CHECKING:
    import tokenizers

# The model of a tokenizer.json that each kind of class takes; with another one the file is used as it is.
_MODELS = {
    tokenization.BERT: "WordPiece",
    tokenization.MPNET: "WordPiece",
    tokenization.ROBERTA: "BPE",
    tokenization.XLM_ROBERTA: "Unigram",
}


def apply(tokenizer: tokenizers.Tokenizer, rules: ClassRules) -> None:
    """Change a tokenizer as the class does.

    Raises:
        ModelLoadError: the vocabulary lacks a special token of the class.
    """
    if type(tokenizer.model).__name__ == _MODELS[rules.kind]:
        if rules.kind in (tokenization.BERT, tokenization.MPNET):
            _as_bert(tokenizer, rules)
        elif rules.kind == tokenization.ROBERTA:
            _as_roberta(tokenizer, rules)
        else:
            _as_xlm_roberta(tokenizer, rules)


def _as_bert(tokenizer: tokenizers.Tokenizer, rules: ClassRules) -> None:
    from tokenizers import normalizers, pre_tokenizers, processors

    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=rules.chinese_characters,
        strip_accents=rules.strip_accents,
        lowercase=rules.lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if tokenizer.token_to_id(rules.unknown) is not None:
        tokenizer.model.unk_token = rules.unknown
    begin, end = _ids(tokenizer, rules)
    if rules.kind == tokenization.MPNET:
        tokenizer.post_processor = processors.RobertaProcessing((rules.end, end), (rules.begin, begin))
        return
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{rules.begin}:0 $A:0 {rules.end}:0",
        pair=f"{rules.begin}:0 $A:0 {rules.end}:0 $B:1 {rules.end}:1",
        special_tokens=[(rules.begin, begin), (rules.end, end)],
    )


def _as_roberta(tokenizer: tokenizers.Tokenizer, rules: ClassRules) -> None:
    from tokenizers import pre_tokenizers, processors

    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rules.prefix_space)
    begin, end = _ids(tokenizer, rules)
    tokenizer.post_processor = processors.RobertaProcessing((rules.end, end), (rules.begin, begin))


def _as_xlm_roberta(tokenizer: tokenizers.Tokenizer, rules: ClassRules) -> None:
    from tokenizers import pre_tokenizers, processors

    tokenizer.normalizer = _precompiled(tokenizer)
    scheme = "always" if rules.prefix_space else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)]
    )
    begin, end = _ids(tokenizer, rules)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[rules.begin, "$A", rules.end],
        pair=[rules.begin, "$A", rules.end, rules.end, "$B", rules.end],
        special_tokens=[(rules.begin, begin), (rules.end, end)],
    )


def _precompiled(tokenizer: tokenizers.Tokenizer) -> tokenizers.normalizers.Normalizer | None:
    """The normalizer with SentencePiece's table of characters, without what stands beside it."""
    from tokenizers import normalizers

    if tokenizer.normalizer is None:
        return None
    state = json.loads(tokenizer.normalizer.__getstate__())
    listed = state["normalizers"] if state["type"] == "Sequence" else [state]
    tables = [each["precompiled_charsmap"] for each in listed if each["type"] == "Precompiled"]
    return normalizers.Precompiled(base64.b64decode(tables[0])) if tables else None


def _ids(tokenizer: tokenizers.Tokenizer, rules: ClassRules) -> tuple[int, int]:
    """The ids of `begin` and `end`."""
    begin, end = (tokenizer.token_to_id(token) for token in (rules.begin, rules.end))
    if begin is None or end is None:
        missing = rules.begin if begin is None else rules.end
        raise ModelLoadError(f"tokenizer.json has no token {missing!r}, which tokenizer_config.json names")
    return begin, end
