"""What a folder says in sentence-transformers' two files beside its modules.

sentence_bert_config.json is about the transformer, config_sentence_transformers.json about the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fastrank.models import fields
from fastrank.models.config import Config
from fastrank.models.spec import Prefixes

ENCODER: Final = "config_sentence_transformers.json"

_LONGEST = 10_000_000
# The second and later names are of versions before 3.
_TRANSFORMER_FILES = tuple(
    f"sentence_{model}_config.json"
    for model in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Arguments of loading that change no number in float32, or that are about code and files.
_HARMLESS_ARGUMENTS = {
    *("attn_implementation", "cache_dir", "code_revision", "device_map", "dtype", "ignore_mismatched_sizes"),
    *("local_files_only", "low_cpu_mem_usage", "revision", "token", "torch_dtype", "trust_remote_code"),
    *("unpad_inputs", "use_fast", "use_memory_efficient_attention", "use_safetensors", "add_pooling_layer"),
}
# Our class for what each of sentence-transformers' and PyLate's saves.
_PUBLIC = {
    "SentenceTransformer": "TextEmbedding",
    "SparseEncoder": "SparseTextEmbedding",
    "CrossEncoder": "TextCrossEncoder",
    "MultiVectorEncoder": "LateInteractionTextEmbedding",
    "ColBERT": "LateInteractionTextEmbedding",
}
_TO_CHANGE = "take the field out if the modules are meant for this class"
_OUTPUTS = {"last_hidden_state": ("token_embeddings",), "logits": ("token_embeddings", "scores", "causal_logits")}
_FORMATS = ("flat", "structured", "auto")
_OF_CALL = ("max_length", "padding", "truncation", "return_tensors")  # arguments of the tokenizer
# Arguments of transformers' apply_chat_template that are no variables of the template.
_NO_VARIABLES = {
    *("tools", "documents", "chat_template", "continue_final_message", "sanitize_control_tokens", "tokenizer_kwargs"),
    *("return_assistant_tokens_mask", "messages"),
}
_TASKS = ("feature-extraction", "fill-mask", "sequence-classification", "text-generation")


class TransformerSettings(NamedTuple):
    """What sentence_bert_config.json says of how texts become tokens, beside max_seq_length and do_lower_case.

    Attributes:
        max_length: tokens a text may have, where arguments of the tokenizer say so.
        query_length: tokens a query may have.
        document_length: tokens a passage may have.
        tokenizer: fields as those of tokenizer_config.json, which they replace.
        message_format: how a chat template gets texts: "flat", "structured" or "auto"; None: it is not used.
        template_arguments: variables of the chat template.
    """

    max_length: int | None
    query_length: int | None
    document_length: int | None
    tokenizer: dict[str, Any]
    message_format: str | None = None
    template_arguments: Mapping[str, Any] = MappingProxyType({})


class EncoderSettings(NamedTuple):
    """What config_sentence_transformers.json says of every kind of model.

    Attributes:
        prefixes: put before texts.
        truncate_dim: how many numbers of a dense vector are kept; None: all.
        activation: of cross-encoders, from logits to scores: the path of a class of torch.nn; None: it does not say.
        max_active_dims: of sparse encoders: how many of the largest weights are kept; None: all.
    """

    prefixes: Prefixes
    truncate_dim: int | None
    activation: str | None
    max_active_dims: int | None


NOTHING: Final = EncoderSettings(Prefixes(), None, None, None)
"""Of a folder that is not asked."""


def transformer_file(folder: Path) -> Config:
    """The file about the transformer, every field known; without fields if there is none."""
    path = next(
        (folder / name for name in _TRANSFORMER_FILES if (folder / name).exists()), folder / _TRANSFORMER_FILES[0]
    )
    return Config.read_if_present(path).known(fields.TRANSFORMER)


def transformer(folder: Path, *, messages: bool = False) -> TransformerSettings:
    """What the file about the transformer says, checked.

    Args:
        folder: the model's.
        messages: whether texts may be put into the tokenizer's chat template; else a folder that does is refused.

    Raises:
        ModelLoadError: the file is damaged, or a field or value cannot be applied.
    """
    config = transformer_file(folder)
    config.choice("transformer_task", _TASKS, "feature-extraction")
    message_format = _checked_modalities(config, messages=messages)
    for field in ("model_args", "model_kwargs", "config_args", "config_kwargs"):
        _refuse_others(config.section(field), _HARMLESS_ARGUMENTS)
    tokenizer: dict[str, Any] = {}
    for field in ("tokenizer_args", "processor_kwargs"):
        arguments = config.section(field)
        _refuse_others(arguments, {*fields.TOKENIZER.applied, *_HARMLESS_ARGUMENTS, "padding_side"})
        tokenizer |= arguments.values()
    limit = tokenizer.get("model_max_length")
    processing = config.section("processing_kwargs")
    of_template = processing.section("chat_template")
    in_call = [processing.section(name) for name in ("text", "common")]
    for section in in_call:
        _refuse_others(section, set(_OF_CALL))
    called = [_called(section) for section in (of_template, *in_call)]
    _refuse_others(processing, {"text", "common", "audio", "image", "video", "chat_template"})
    if refused := [name for name in of_template.fields() if name in _NO_VARIABLES and of_template.value(name)]:
        raise of_template.error(refused[0], "fastrank cannot apply it")
    return TransformerSettings(
        next((length for length in called if length), limit if isinstance(limit, int) else None),
        config.integer("query_length", 0, low=0, high=_LONGEST) or None,
        config.integer("document_length", 0, low=0, high=_LONGEST) or None,
        tokenizer,
        message_format,
        {name: value for name, value in of_template.values().items() if name not in _OF_CALL},
    )


def encoder(folder: Path, saved_by: str) -> EncoderSettings:
    """What config_sentence_transformers.json says, if there is one.

    Args:
        folder: the model's.
        saved_by: the class that saves such models; a folder that names another one is used differently.

    Raises:
        ModelLoadError: the file is damaged, has a field that is not known, or is of another class.
    """
    config = Config.read_if_present(folder / ENCODER).known(fields.SENTENCE_TRANSFORMERS)
    config.refuse_null("model_type")
    stated = config.string("model_type", default=saved_by)
    if stated != saved_by:
        use = _PUBLIC.get(stated)
        advice = f"use {use}, or {_TO_CHANGE}" if use else _TO_CHANGE
        raise config.error("model_type", f"that class uses a folder differently: {advice}")
    return EncoderSettings(
        prompts(config),
        config.integer("truncate_dim", 0, low=0, high=_LONGEST) or None,
        config.string("activation_fn", default="") or None,
        config.integer("max_active_dims", 0, low=0, high=_LONGEST) or None,
    )


def prompts(config: Config) -> Prefixes:
    """The prompts, as sentence-transformers 6 resolves them.

    `query_embed` takes "query" and `passage_embed` "document"; both names exist even where the file has none, as empty
    ones, so that the default prompt is that of `embed` alone.
    """
    listed = config.section("prompts")
    texts = {name: listed.string(name) for name in listed.fields()}
    default = config.string("default_prompt_name", default="")
    if default and default not in {*texts, "query", "document"}:
        raise config.error("default_prompt_name", f"the prompts are {', '.join(map(repr, texts)) or 'none'}")
    return Prefixes(texts.get("query", ""), texts.get("document", ""), texts.get(default, ""))


def strips(folder: Path) -> bool:
    """Whether the library that saved the folder removes white space at the ends of texts.

    sentence-transformers before 6 does, and with it PyLate.
    """
    config = Config.read_if_present(folder / ENCODER)
    if config.string("model_type", default="") == "ColBERT":
        return True
    version = config.section("__version__").string("sentence_transformers", default="")
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < 6


def _checked_modalities(config: Config, *, messages: bool) -> str | None:
    """How a chat template gets texts, None where it is not used. Other modalities than text are never run."""
    modalities = config.section("modality_config")
    if not modalities.fields():
        return None
    message = modalities.section("message")
    if message.fields() and not messages:
        raise modalities.error("message", "fastrank uses chat templates of cross-encoders only")
    used = message if message.fields() else modalities.section("text")
    if not used.fields():
        raise modalities.error("text", "fastrank runs texts only")
    used.choice("method", ["forward"], "forward")
    output = used.choice("method_output_name", list(_OUTPUTS))
    config.choice("module_output_name", _OUTPUTS[output])
    return str(used.choice("format", _FORMATS, "auto")) if message.fields() else None


def _called(arguments: Config) -> int | None:
    """The limit among the arguments of the tokenizer's call, whose other values must be the usual ones."""
    arguments.choice("padding", [True, "longest", "max_length"], default=True)
    arguments.choice("truncation", [True, "longest_first"], default=True)
    return arguments.integer("max_length", 0, low=0, high=_LONGEST) or None


def _refuse_others(config: Config, known: set[str]) -> None:
    for field in config.fields():
        if field not in known:
            raise config.error(field, "fastrank does not know this field, so results might be wrong")
