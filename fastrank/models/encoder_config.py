"""What a folder says in sentence-transformers' two files beside its modules.

sentence_bert_config.json is about the transformer, config_sentence_transformers.json about the model.
"""

from __future__ import annotations

from pathlib import Path
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
_TASKS = ("feature-extraction", "fill-mask", "sequence-classification", "text-generation")


class TransformerSettings(NamedTuple):
    """What sentence_bert_config.json says of how texts become tokens, beside max_seq_length and do_lower_case.

    Attributes:
        max_length: tokens a text may have, where arguments of the tokenizer say so.
        query_length: tokens a query may have.
        document_length: tokens a passage may have.
        tokenizer: fields as those of tokenizer_config.json, which they replace.
    """

    max_length: int | None
    query_length: int | None
    document_length: int | None
    tokenizer: dict[str, Any]


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


def transformer(folder: Path) -> TransformerSettings:
    """What the file about the transformer says, checked.

    Raises:
        ModelLoadError: the file is damaged, or a field or value cannot be applied.
    """
    config = transformer_file(folder)
    config.choice("transformer_task", _TASKS, "feature-extraction")
    _check_modalities(config)
    for field in ("model_args", "model_kwargs", "config_args", "config_kwargs"):
        _refuse_others(config.section(field), _HARMLESS_ARGUMENTS)
    tokenizer: dict[str, Any] = {}
    for field in ("tokenizer_args", "processor_kwargs"):
        arguments = config.section(field)
        _refuse_others(arguments, {*fields.TOKENIZER.applied, *_HARMLESS_ARGUMENTS, "padding_side"})
        tokenizer |= arguments.values()
    limit = tokenizer.get("model_max_length")
    called = [_called(config.section("processing_kwargs"), name) for name in ("text", "common")]
    _refuse_others(config.section("processing_kwargs"), {"text", "common", "audio", "image", "video", "chat_template"})
    return TransformerSettings(
        next((length for length in called if length), limit if isinstance(limit, int) else None),
        config.integer("query_length", 0, low=0, high=_LONGEST) or None,
        config.integer("document_length", 0, low=0, high=_LONGEST) or None,
        tokenizer,
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


def _check_modalities(config: Config) -> None:
    """Refuse all but texts by the usual method; other modalities than text are never run."""
    modalities = config.section("modality_config")
    if not modalities.fields():
        return
    if modalities.has("message"):
        raise modalities.error("message", "fastrank runs no chat templates")
    if not modalities.has("text"):
        raise modalities.error("text", "fastrank runs texts only")
    text = modalities.section("text")
    text.choice("method", ["forward"], "forward")
    output = text.choice("method_output_name", list(_OUTPUTS))
    config.choice("module_output_name", _OUTPUTS[output])


def _called(processing: Config, name: str) -> int | None:
    """The limit among the arguments of the tokenizer's call, whose other values must be the usual ones."""
    arguments = processing.section(name)
    _refuse_others(arguments, {"max_length", "padding", "truncation", "return_tensors"})
    arguments.choice("padding", [True, "longest", "max_length"], default=True)
    arguments.choice("truncation", [True, "longest_first"], default=True)
    return arguments.integer("max_length", 0, low=0, high=_LONGEST) or None


def _refuse_others(config: Config, known: set[str]) -> None:
    for field in config.fields():
        if field not in known:
            raise config.error(field, "fastrank does not know this field, so results might be wrong")
