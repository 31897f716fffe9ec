"""What a folder says of rerankers that are language models: the prompt of a pair, and the tokens that score it.

sentence-transformers 6 puts query and document into the tokenizer's chat template, as messages of these two roles, and
scores by the logits of two tokens (its module LogitScore) or by a classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastrank.errors import ModelLoadError
from fastrank.models import chat_template, encoder_config, fields
from fastrank.models.config import Config
from fastrank.models.pair_prompt import PairPrompt, ScoreTokens
from fastrank.models.sentence_transformers import MODULES, Module, first_module, modules
from fastrank.models.tokenization import special_token

LOGIT_SCORE: Final = "LogitScore"

_LARGEST = 10_000_000
_LOGITS = "causal_logits"
_WORDS: Final = ("yes", "no")  # what sentence-transformers takes where no module says which tokens count
_NAMED: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # tokens that templates may insert
_PROBES: Final = (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))


def prompt(folder: Path, instruction: str) -> PairPrompt | None:
    """The prompt of the pairs of a folder's cross-encoder; None if its tokenizer gets them as pairs.

    Raises:
        ModelLoadError: a file is damaged, or the template cannot be used.
    """
    listed, home = modules(folder), first_module(folder)
    transformer, source = encoder_config.transformer(home, messages=True), chat_template.read(home)
    saved, message = bool(listed), transformer.message_format
    if message is None and (saved or source is None or encoder_config.transformer_file(home).has("modality_config")):
        return None
    if source is None:
        raise ModelLoadError(
            f"{folder}: sentence_bert_config.json asks for a chat template, and the tokenizer has none"
        )
    structured = chat_template.is_structured(source) if message in (None, "auto") else message == "structured"
    variables = {**_special_tokens(home), **transformer.template_arguments}
    restores = variables.pop("restore_suffix", True)
    found = PairPrompt(
        chat_template.compiled(source, folder), structured, variables, instruction, restores_end=bool(restores)
    )
    failure = _failure(found)
    if failure is None:
        return found
    if not saved and score_tokens(folder) is None:
        return None  # a classifier whose tokenizer is of a chat model: pairs, as before sentence-transformers 6
    raise ModelLoadError(
        f"{folder}: the chat template cannot carry a query and a document ({failure}). Put one that renders messages "
        f"of the roles 'query' and 'document' into {chat_template.FILE}"
    )


def score_tokens(folder: Path) -> ScoreTokens | None:
    """The tokens whose logits score a pair; None if a folder's model is no language model.

    Raises:
        ModelLoadError: a file is damaged, or has something that cannot be applied.
    """
    listed = modules(folder)
    if not listed:
        names = Config.read_if_present(folder / "config.json").value("architectures")
        first = names[0] if isinstance(names, list) and names else ""
        return ScoreTokens(*_WORDS) if str(first).endswith("ForCausalLM") else None
    last = listed[-1]
    if last.kind != LOGIT_SCORE:
        return None
    if [module.kind for module in listed] != ["Transformer", LOGIT_SCORE]:
        kinds = ", ".join(module.kind for module in listed)
        raise ModelLoadError(f"{folder / MODULES}: LogitScore is supported after Transformer only, not in {kinds}")
    encoder_config.transformer_file(first_module(folder)).choice("transformer_task", ["text-generation"])
    return _of_module(last)


def _of_module(module: Module) -> ScoreTokens:
    config = Config.read(module.folder / "config.json").known(fields.LOGIT_SCORE)
    config.choice("module_input_name", [_LOGITS], _LOGITS)
    true = config.integer("true_token_id", low=0, high=_LARGEST)
    has_false = config.has("false_token_id")
    return ScoreTokens(true, config.integer("false_token_id", low=0, high=_LARGEST) if has_false else None)


def _special_tokens(folder: Path) -> dict[str, Any]:
    config = Config.read_if_present(folder / "tokenizer_config.json")
    named = {f"{name}_token": special_token(config, f"{name}_token") for name in _NAMED}
    return {name: token for name, token in named.items() if token}


def _failure(prompt: PairPrompt) -> str | None:
    """Why a template cannot carry pairs; None if it can. It is tried, as sentence-transformers does."""
    try:
        base, *varied = [prompt._replace(instruction="").text(*pair) for pair in _PROBES]
    except ModelLoadError as error:
        return str(error)
    dropped = [role for role, text in zip(("query", "document"), varied, strict=True) if text == base]
    return f"the {' and the '.join(dropped)} would be left out" if dropped else None
