"""What becomes of every field of a model folder's JSON files: applied, harmless, or refused, as plain data.

A field that is in no list is refused by file and name, unless the table says why other names are harmless. config.json
is not here: each architecture reads its own fields, and `graph` refuses what nothing has read. `docs/folders.md` has
these tables for people. Sources: the save functions of sentence-transformers 2.0 to 6.2, PyLate 1.0 to 1.6, ColBERT
0.2, transformers 4 and 5, model2vec 0.10, and what published models carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

_NONE: Mapping[str, str] = MappingProxyType({})


class Fields(NamedTuple):
    """The fields of one kind of file.

    Attributes:
        file: where they stand, for people.
        applied: field -> what it does. Values that cannot be applied are refused by the code that reads the field.
        harmless: field -> why it changes no number.
        refused: field -> why; null, false and empty values ask for nothing and are accepted.
        others: why fields of other names are harmless; empty: they are refused.
    """

    file: str
    applied: Mapping[str, str]
    harmless: Mapping[str, str] = _NONE
    refused: Mapping[str, str] = _NONE
    others: str = ""


_INPUT = "what the module reads: the sentence's embedding, or the tokens' before pooling"
_OUTPUT = "where the result goes; only where the module read from (scores: the last module of a cross-encoder)"
_TRAINING = "only of training"
_VERSION = "which version wrote the folder"
_MULTI_VECTOR = "settings of multi-vector models, which stand in sentence_bert_config.json since 6.0"

MODULES: Final = Fields(
    "modules.json, each row",
    applied={"type": "which module it is, by the last part of the name", "path": "its folder"},
    harmless={
        "idx": "the order of rows counts",
        "name": "a label",
        "kwargs": "names of arguments that callers may pass to the module",
    },
)

ROUTER: Final = Fields(
    "router_config.json",
    applied={
        "types": "which module each is, by the last part of its name; its folder has the name that stands before",
        "structure": "the modules of each route, in order",
        "parameters": "how a route is chosen",
    },
)

ROUTER_PARAMETERS: Final = Fields(
    "router_config.json: parameters",
    applied={
        "default_route": "the route of `embed`",
        "allow_empty_key": "whether the first route is that of `embed` where no default_route is named",
        "route_mappings": 'routes by task ("query", "document") and kind of input, of which only "text" counts',
    },
)

POOLING: Final = Fields(
    "Pooling: config.json",
    applied={
        "embedding_dimension": "checked against what pooling returns",
        "word_embedding_dimension": "the older name of embedding_dimension",
        "pooling_mode": "how token states become one vector; several are concatenated",
        "pooling_mode_cls_token": "the older form of pooling_mode",
        "pooling_mode_max_tokens": "the older form of pooling_mode",
        "pooling_mode_mean_tokens": "the older form of pooling_mode",
        "pooling_mode_mean_sqrt_len_tokens": "the older form of pooling_mode",
        "pooling_mode_weightedmean_tokens": "the older form of pooling_mode",
        "pooling_mode_lasttoken": "the older form of pooling_mode",
        "include_prompt": "whether the tokens of a prompt count",
    },
)

WEIGHTED_LAYERS: Final = Fields(
    "WeightedLayerPooling: config.json",
    applied={
        "layer_start": "the first of the layers whose states are averaged; 0: the embeddings",
        "num_hidden_layers": "the last of them; checked against the transformer's",
    },
    harmless={
        "embedding_dimension": "the size of a hidden state, which the graph says",
        "word_embedding_dimension": "the older name of embedding_dimension",
    },
)

DENSE: Final = Fields(
    "Dense: config.json",
    applied={
        "in_features": "checked against the module before",
        "out_features": "the size of the result",
        "bias": "whether a bias is added",
        "activation_function": "after the product, by the name of its class in torch.nn",
        "use_residual": "whether the input is added",
        "module_input_name": _INPUT,
        "module_output_name": _OUTPUT,
    },
)

LAYER_NORM: Final = Fields("LayerNorm: config.json", applied={"dimension": "checked against the module before"})

NORMALIZE: Final = Fields(
    "Normalize: config.json", applied={"module_input_name": _INPUT, "module_output_name": _OUTPUT}
)

DROPOUT: Final = Fields("Dropout: config.json", applied={}, harmless={"dropout": _TRAINING})

SPLADE_POOLING: Final = Fields(
    "SpladePooling: config.json",
    applied={
        "pooling_strategy": "maximum or sum over the tokens",
        "activation_function": "relu: log(1 + x); log1p_relu: the logarithm twice",
    },
    harmless={
        "embedding_dimension": "the size of the vocabulary, which the graph says",
        "word_embedding_dimension": "the older name of embedding_dimension",
        "chunk_size": "how many tokens are pooled at a time",
    },
)

LOGIT_SCORE: Final = Fields(
    "LogitScore: config.json",
    applied={
        "true_token_id": "the token whose logit is the score",
        "false_token_id": "the token whose logit is subtracted",
        "module_input_name": "only causal_logits, those of the language model",
    },
)

SPARSE_STATIC: Final = Fields(
    "SparseStaticEmbedding: config.json",
    applied={},
    harmless={"frozen": _TRAINING},
    refused={"path": "a table of weights outside the module's model.safetensors"},
)

MULTI_VECTOR_MASK: Final = Fields(
    "MultiVectorMask: config.json",
    applied={
        "skiplist_words": "tokens that leave no vector",
        "skiplist_tasks": "of documents, queries, or both",
    },
    refused={"keep_only_token_ids": "only models of images have it"},
)

TOKEN_POOLING: Final = Fields(
    "HierarchicalTokenPooling: config.json",
    applied={
        "pool_factor": "how many tokens become one, on average",
        "num_protected_tokens": "how many of the first tokens stay as they are",
        "normalize_embeddings": "whether the result is L2-normalized; false where the field is missing",
        "tasks": "of documents, queries, or both",
    },
)

TRANSFORMER: Final = Fields(
    "sentence_bert_config.json",
    applied={
        "max_seq_length": "tokens a text may have",
        "do_lower_case": "texts are lower-cased before the tokenizer's own steps",
        "query_length": "tokens a query may have",
        "document_length": "tokens a passage may have",
        "query_expansion": "multi-vector models: strategy, length, token and attention of what fills queries up",
        "transformer_task": "which head the checkpoint has",
        "modality_config": "text by the usual method, or messages: the chat template of cross-encoders",
        "module_output_name": "only token_embeddings, or scores of a classifier",
        "processing_kwargs": "text and common: max_length; others as usual; chat_template: its variables",
        "tokenizer_args": "as if they stood in tokenizer_config.json",
        "processor_kwargs": "the newer name of tokenizer_args",
        "model_args": "arguments of loading: dtype, attention's implementation and the like; others are refused",
        "model_kwargs": "the newer name of model_args",
        "config_args": "as model_args",
        "config_kwargs": "the newer name of config_args",
    },
    harmless={"unpad_inputs": "how texts are laid out in memory", "backend": "what runs the model there"},
    refused={"tokenizer_name_or_path": "the tokenizer of another repository"},
)

SENTENCE_TRANSFORMERS: Final = Fields(
    "config_sentence_transformers.json",
    applied={
        "prompts": "texts put before queries and passages",
        "default_prompt_name": "the prompt that `embed` puts before texts",
        "truncate_dim": "how many numbers of a dense vector are kept",
        "activation_fn": 'cross-encoders, with activation="auto": from logits to scores',
        "max_active_dims": "sparse encoders: how many of the largest weights are kept",
        "model_type": "which class saved the folder",
        "__version__": "whether white space at the ends of texts is removed, as before sentence-transformers 6",
        "query_prefix": "PyLate: a token put into each query",
        "document_prefix": "PyLate: a token put into each document",
        "query_length": "PyLate: tokens of a query",
        "document_length": "PyLate: tokens a document may have",
        "attend_to_expansion_tokens": "PyLate: whether what fills queries up is attended to",
        "do_query_expansion": "PyLate: query expansion",
        "skiplist_words": "PyLate: tokens that leave no vector",
    },
    harmless={
        "similarity_fn_name": "how the caller compares vectors",
        "keep_in_fp32_modules": "of half precision in torch",
        "cross_encoder": "notes of old versions",
        "requirements": "versions of libraries that the author asks for",
    },
    refused={"query_expansion": _MULTI_VECTOR, "attend_to_mask_tokens": "written by no library here"},
)

COLBERT: Final = Fields(
    "artifact.metadata",
    applied={
        "dim": "the size of a token's vector",
        "query_token_id": "the token put into each query",
        "doc_token_id": "the token put into each document",
        "query_maxlen": "tokens of a query",
        "doc_maxlen": "tokens a document may have",
        "attend_to_mask_tokens": "whether what fills queries up is attended to",
        "mask_punctuation": "whether punctuation leaves no vector in documents",
        "similarity": "cosine or l2: with L2-normalized vectors, as these are, both rank alike",
        "interaction": "only colbert",
    },
    others="training, indexing and search: how lists were sampled, where files were, how an index is compressed",
)

MODEL2VEC: Final = Fields(
    "config.json of model2vec",
    applied={
        "model_type": "model2vec; or the names of old versions",
        "normalize": "whether vectors are L2-normalized; where modules.json says otherwise, the folder is refused",
        "max_length": "tokens a text may have, and so many times the median length of a token in characters",
    },
    others="notes of how the table was made; the tensors say the rest",
)

TOKENIZER: Final = Fields(
    "tokenizer_config.json",
    applied={
        "tokenizer_class": "the normalizer, words and special tokens that transformers 5 builds for the class",
        "model_max_length": "tokens a text may have",
        "truncation_side": "which end of a long text is cut off",
        "model_input_names": "without token_type_ids the two texts of a pair have the same token type",
        "do_lower_case": "BERT's and MPNet's classes: texts are lower-cased",
        "strip_accents": "BERT's and MPNet's classes: accents are removed",
        "tokenize_chinese_chars": "BERT's and MPNet's classes: each Chinese character is a word",
        "add_prefix_space": "RoBERTa's and XLM-RoBERTa's classes: a space before the first word",
        "split_special_tokens": "special tokens in texts are read as their letters",
        "pad_token": "what shorter texts of a batch are padded with",
        "mask_token": "the token of query expansion",
        "eos_token": "the same where there is no mask_token; and the end of a text for some classes",
        "bos_token": "the beginning of a text for XLM-RoBERTa's class",
        "cls_token": "the beginning of a text for BERT's, MPNet's and RoBERTa's classes",
        "sep_token": "the end of a text for these",
        "unk_token": "stands for what the vocabulary does not have, for BERT's and MPNet's classes",
        "additional_special_tokens": "words of the vocabulary that are special tokens",
        "extra_special_tokens": "the newer name of additional_special_tokens",
    },
    harmless={
        "padding_side": "vectors never depend on the texts that run together",
        "add_bos_token": "transformers 5 reads it from tokenizer.json's template",
        "add_eos_token": "as add_bos_token",
        "added_tokens_decoder": "a copy of what stands in tokenizer.json",
        "chat_template": "used for messages only: see modality_config",
        "max_length": "left from training; model_max_length counts",
        "stride": "left from training",
    },
    others="transformers keeps any keyword here. All that change the tokens of a text are in this table",
)

ALL: Final = (
    MODULES,
    ROUTER,
    ROUTER_PARAMETERS,
    TRANSFORMER,
    SENTENCE_TRANSFORMERS,
    TOKENIZER,
    WEIGHTED_LAYERS,
    POOLING,
    DENSE,
    LAYER_NORM,
    NORMALIZE,
    DROPOUT,
    LOGIT_SCORE,
    SPLADE_POOLING,
    SPARSE_STATIC,
    MULTI_VECTOR_MASK,
    TOKEN_POOLING,
    COLBERT,
    MODEL2VEC,
)
