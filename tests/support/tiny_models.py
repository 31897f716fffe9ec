"""Tokenizers and models small enough to build in memory, in the formats of the real ones. The same every time.

    hub.add_repo("acme/tiny", model_files())               # hub: a HubStandIn
    folder = write_model(tmp_path / "tiny", tiny_pooled())

The models are made so that mistakes show. The state of a token depends on its word, its position, its segment and on
the mean of all tokens that the mask keeps: a wrong mask, wrong ids, lost segments or padding on the left change every
number. What is behind the mask has no influence on the rest, nor have the other rows of the batch (rounding aside,
below 1e-5). States of padding are not zero, so that pooling must look at the mask. Positions past the last one are an
error, as in real models.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

DIM = 16
MAX_POSITIONS = 512
MODEL_PATH = "onnx/model.onnx"
IR_VERSION, OPSET = 8, 17  # so that old versions of onnxruntime load them

_WORDS = [
    *("the", "of", "and", "to", "in", "is", "it", "for", "on", "what", "where", "how", "hello", "world", "nan"),
    *("capital", "france", "paris", "germany", "berlin", "cat", "cats", "dog", "red", "green", "blue", "fast"),
    *("one", "two", "three", "rank", "search", "query", "document", "text", "vector", "model"),
]
_CHARACTERS = string.ascii_lowercase + string.digits
_VOCABULARIES = {
    "wordpiece": [
        *("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *dict.fromkeys([*_CHARACTERS, *(f"##{c}" for c in _CHARACTERS), *".,:;!?'\"-()/", *_WORDS, "##ing", "##ed"]),
    ],
    "bpe": ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())],
}
_SPECIAL = {"wordpiece": 7, "bpe": 5}  # so many at the beginning
PAD_ID = {"wordpiece": 0, "bpe": 1}


def vocabulary(kind="wordpiece"):
    """The tokens of `tiny_tokenizer(kind)`; a token's place is its id."""
    return list(_VOCABULARIES[kind])


def tiny_tokenizer(kind="wordpiece", *, padding=None, truncation=None):
    """A tokenizer.json.

    "wordpiece" is BERT's: lower case, [CLS] a [SEP] b [SEP] in segments 0 and 1, padding token 0.
    "bpe" is RoBERTa's: a token a byte, upper case matters, <s> a </s></s> b </s> in segment 0, padding token 1.
    `padding` and `truncation` are lengths baked into the file, as some published files have them.
    """
    tokenizer = {"wordpiece": _wordpiece, "bpe": _bpe}[kind]()
    tokenizer.add_special_tokens(vocabulary(kind)[: _SPECIAL[kind]])
    if truncation is not None:
        tokenizer.enable_truncation(truncation)
    if padding is not None:
        tokenizer.enable_padding(length=padding, pad_id=PAD_ID[kind], pad_token=vocabulary(kind)[PAD_ID[kind]])
    return tokenizer.to_str().encode()


def tiny_encoder(dim=DIM, *, seed=0, nan=False, segments=True, max_positions=MAX_POSITIONS):
    """input_ids, attention_mask, token_type_ids -> last_hidden_state (texts, length, dim).

    With `nan`, WordPiece texts that have the word "nan" come out as NaN, and only those.
    Without `segments` there is no input token_type_ids.
    """
    graph = _Encoder(dim, seed, nan=nan, segments=segments, max_positions=max_positions)
    graph.node("Identity", [graph.states], "last_hidden_state")
    return graph.model("last_hidden_state", ["texts", "length", dim])


def tiny_pooled(dim=DIM, *, seed=0, nan=False, segments=True, max_positions=MAX_POSITIONS):
    """The same inputs -> sentence_embedding (texts, dim): the mean of `tiny_encoder`'s states, not normalised."""
    graph = _Encoder(dim, seed, nan=nan, segments=segments, max_positions=max_positions)
    graph.mean(graph.states, "sentence_embedding")
    return graph.model("sentence_embedding", ["texts", dim])


def tiny_cross_encoder(n_classes=1, *, dim=DIM, seed=0, nan=False, segments=True, max_positions=MAX_POSITIONS):
    """The same inputs -> logits (texts, n_classes)."""
    graph = _Encoder(dim, seed, nan=nan, segments=segments, max_positions=max_positions)
    graph.mean(graph.states, "pooled")
    graph.random("classes", (dim, n_classes))
    graph.node("MatMul", ["pooled", "classes"], "logits")
    return graph.model("logits", ["texts", n_classes])


def model_files(model=None, *, tokenizer=None, model_path=MODEL_PATH, **config):
    """A model folder as path -> content: tokenizer.json, config.json and the model (`tiny_encoder()` if not given).

    `config` adds to config.json or changes it; None takes a field out.
    """
    fields = {
        "model_type": "bert",
        "pad_token_id": PAD_ID["wordpiece"],
        "max_position_embeddings": MAX_POSITIONS,
        "vocab_size": len(vocabulary()),
        **config,
    }
    return {
        "tokenizer.json": tiny_tokenizer() if tokenizer is None else tokenizer,
        "config.json": json.dumps({name: value for name, value in fields.items() if value is not None}).encode(),
        model_path: tiny_encoder() if model is None else model,
    }


def write_model(folder, model=None, **options):
    """`model_files(model, **options)` in a folder, which is made if need be and returned."""
    for name, content in model_files(model, **options).items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(folder)


def _wordpiece():
    ids = {token: number for number, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _bpe():
    ids = {token: number for number, token in enumerate(vocabulary("bpe"))}
    tokenizer = Tokenizer(models.BPE(ids, [], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, ids[token]) for token in ("<s>", "</s>")],
    )
    return tokenizer


class _Encoder:
    """A graph up to the states of the tokens, for a head to be put on."""

    states = "states"

    def __init__(self, dim, seed, *, nan, segments, max_positions):
        self._draw = np.random.default_rng(seed)
        self._nodes = []
        self._inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]
        self._weights = {name: np.int64(value) for name, value in (("zero", 0), ("one", 1))}
        self._weights |= {name: np.array([value]) for name, value in (("axis_1", 1), ("axis_2", 2))}
        self._weights["floor"] = np.float32(1)
        self.random("words", (max(map(len, _VOCABULARIES.values())), dim))  # so that it goes with each tokenizer
        self.random("positions", (max_positions, dim), scale=0.5)
        self.random("segments", (2, dim), scale=0.5)
        self.random("own", (dim, dim), scale=dim**-0.5)
        self.random("others", (dim, dim), scale=2 * dim**-0.5)
        if nan:
            self._weights["words"][vocabulary().index("nan")] = np.nan

        self.node("Gather", ["words", "input_ids"], "word")
        self.node("Shape", ["input_ids"], "shape")
        self.node("Gather", ["shape", "one"], "length")
        self.node("Range", ["zero", "length", "one"], "places")
        self.node("Gather", ["positions", "places"], "position")
        self.node("Add", ["word", "position"], "placed")
        if segments:
            self.node("Gather", ["segments", "token_type_ids"], "segment")
            self.node("Add", ["placed", "segment"], "tokens")
        else:
            self.node("Identity", ["placed"], "tokens")
        self.node("Cast", ["attention_mask"], "flat_mask", to=TensorProto.FLOAT)
        self.node("Unsqueeze", ["flat_mask", "axis_2"], "mask")
        self.mean("tokens", "context", keepdims=1)
        self.node("MatMul", ["tokens", "own"], "from_own")
        self.node("MatMul", ["context", "others"], "from_others")
        self.node("Add", ["from_own", "from_others"], "mixed")
        self.node("Tanh", ["mixed"], self.states)

    def node(self, kind, inputs, output, **attributes):
        """One operation with one output."""
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def random(self, name, shape, scale=1.0):
        """A weight drawn from the seed."""
        self._weights[name] = self._draw.normal(scale=scale, size=shape).astype(np.float32)

    def mean(self, states, output, keepdims=0):
        """The mean over the tokens that the mask keeps."""
        self.node("Mul", [states, "mask"], f"{output}_kept")
        self.node("ReduceSum", [f"{output}_kept", "axis_1"], f"{output}_sum", keepdims=keepdims)
        self.node("ReduceSum", ["mask", "axis_1"], f"{output}_number", keepdims=keepdims)
        self.node("Max", [f"{output}_number", "floor"], f"{output}_divisor")
        self.node("Div", [f"{output}_sum", f"{output}_divisor"], output)

    def model(self, output, shape):
        """The finished model."""
        used = {name for node in self._nodes for name in node.input}
        model = helper.make_model(
            helper.make_graph(
                self._nodes,
                "tiny",
                [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "length"]) for name in self._inputs],
                [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
                [numpy_helper.from_array(np.asarray(w), name) for name, w in self._weights.items() if name in used],
            ),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="tiny_models",
        )
        checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)
