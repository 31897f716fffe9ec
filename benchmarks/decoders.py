"""Memory and speed of decoders of real shapes with random weights, beside sentence-transformers and llama.cpp.

    python benchmarks/decoders.py --torch /path/a/bin/python --llama /path/b/bin/python --json result.json

Weights are random (bfloat16), since speed and memory do not depend on them; so the cosines to fp32 say how rounding
adds up over 28 layers of noise, not what a trained model loses. Each engine has a process of its own, all on the same
token ids; the engines take turns, and every other round goes backwards. Another Python may have what an engine needs:

    --torch: sentence-transformers        --llama: xllamacpp and gguf (a GGUF file in Q8_0 is written)
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Embed: TypeAlias = Callable[[Sequence[Sequence[int]]], Floats]  # from token ids to vectors of length 1

WORDS = 30_000  # that texts are made of
QUERIES = 4, 12  # texts, tokens
DOCUMENTS = 4, 128
LIMIT = 512
_NORMS = ("input_layernorm", "post_attention_layernorm")

SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "architectures": ["Qwen3Model"],
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151669,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "hidden_act": "silu",
    },
    "EmbeddingGemma-300m": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3TextModel"],
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 24,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "use_bidirectional_attention": True,
        "query_pre_attn_scalar": 256,
    },
}


# -- models of random weights -----------------------------------------------------------------------------------------


def prepare(folder: Path, config: dict[str, Any]) -> None:
    """Write a checkpoint with its tokenizer, in which the word w7 is the token 7."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = tensors(config)
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end := end + 2 * int(np.prod(shape))]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    dice = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = dice.standard_normal(shape, np.float32) * np.float32(0.05 if len(shape) == 1 else 0.02)
            if len(shape) == 1 and config["model_type"] == "qwen3":
                values += 1  # a norm's weight; Gemma adds 1 itself
            file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizers = importlib.import_module("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{number}": number for number in range(2, WORDS)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes as transformers writes them."""
    hidden, inner, width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    wide, narrow = width * config["num_attention_heads"], width * config["num_key_value_heads"]
    norms = (
        _NORMS
        if config["model_type"] == "qwen3"
        else (*_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
    )
    layer = {
        "self_attn.q_proj": [wide, hidden],
        "self_attn.k_proj": [narrow, hidden],
        "self_attn.v_proj": [narrow, hidden],
        "self_attn.o_proj": [hidden, wide],
        "self_attn.q_norm": [width],
        "self_attn.k_norm": [width],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
        **{name: [hidden] for name in norms},
    }
    found = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for number in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return found


def texts(seed: int, count: int, length: int) -> list[list[int]]:
    """Random token ids."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    return [[dice.randrange(2, WORDS) for _ in range(length)] for _ in range(count)]


# -- engines, each alone in a process ---------------------------------------------------------------------------------


def fastrank(folder: Path, threads: int, precision: str) -> Embed:
    """Ours."""
    ours: Any = importlib.import_module("fastrank")
    pooling = "LAST_TOKEN" if is_qwen(folder) else "MEAN"
    model = ours.TextEmbedding(
        "random/weights",
        specific_model_path=folder,
        pooling=pooling,
        normalize=True,
        precision=precision,
        threads=threads,
        max_length=LIMIT,
        cuda=False,
    )
    return lambda ids: np.stack(list(model.embed([" ".join(f"w{token}" for token in text) for text in ids])))


def sentence_transformers(folder: Path, threads: int, dtype: str) -> Embed:
    """Its Transformer and Pooling, on torch."""
    peer, torch = importlib.import_module("sentence_transformers"), importlib.import_module("torch")
    torch.set_num_threads(threads)
    models = importlib.import_module("sentence_transformers.models")
    transformer = models.Transformer(str(folder), max_seq_length=LIMIT, model_kwargs={"dtype": getattr(torch, dtype)})
    pooling = models.Pooling(transformer.get_embedding_dimension(), "lasttoken" if is_qwen(folder) else "mean")
    model = peer.SentenceTransformer(modules=[transformer, pooling, models.Normalize()], device="cpu")

    def embed(ids: Sequence[Sequence[int]]) -> Floats:
        written = [" ".join(f"w{token}" for token in text) for text in ids]
        found: Floats = model.encode(written, show_progress_bar=False, convert_to_numpy=True)
        return found

    return embed


def llama_cpp(folder: Path, threads: int, _: str) -> Embed:
    """llama.cpp on weights in Q8_0."""
    peer = importlib.import_module("xllamacpp")
    file = folder / "q8_0.gguf"
    if not file.is_file():
        write_gguf(folder, file)
    settings = peer.CommonParams()
    settings.model.path = str(file)
    settings.embedding = True
    settings.pooling_type = peer.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 2 * LIMIT
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.verbosity = -1
    server = peer.Server(settings)

    def embed(ids: Sequence[Sequence[int]]) -> Floats:
        answer = server.handle_embeddings({"input": [list(text) for text in ids]})
        answer = json.loads(answer) if isinstance(answer, str) else answer
        if "data" not in answer:
            raise RuntimeError(f"llama.cpp: {answer}")
        return np.array([item["embedding"] for item in answer["data"]], np.float32)

    return embed


def write_gguf(folder: Path, target: Path) -> None:
    """A Qwen3 checkpoint as GGUF, matrices in Q8_0, with a vocabulary that is never used."""
    gguf: Any = importlib.import_module("gguf")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(str(target), "qwen3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"w{number}" for number in range(config["vocab_size"])])
    writer.add_token_types([1] * config["vocab_size"])
    writer.add_token_merges(["w 2"])
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    eight = gguf.GGMLQuantizationType.Q8_0
    for name, values in read_tensors(folder / "model.safetensors"):
        part = name.removeprefix("model.").removesuffix(".weight")
        if part.startswith("layers."):
            _, number, part = part.split(".", 2)
            new = f"blk.{number}.{names[part]}.weight"
        else:
            new = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[part]
        if values.ndim == 2:
            writer.add_tensor(new, gguf.quants.quantize(values, eight), raw_dtype=eight)
        else:
            writer.add_tensor(new, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_tensors(path: Path) -> Iterator[tuple[str, Floats]]:
    """The tensors of a checkpoint in bfloat16, as float32."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.fromfile(path, "<u2", (end - start) // 2, offset=8 + size + start)
        yield name, (values.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def is_qwen(folder: Path) -> bool:
    """Whether the folder's model is Qwen3, which reads the last token; Gemma takes the mean."""
    return '"qwen3"' in (folder / "config.json").read_text(encoding="utf-8")


ENGINES: dict[str, tuple[Callable[[Path, int, str], Embed], str, str]] = {  # how to open, precision, whose Python
    "fastrank fp32": (fastrank, "fp32", ""),
    "fastrank int8": (fastrank, "int8", ""),
    "fastrank int4": (fastrank, "int4", ""),
    "sentence-transformers fp32": (sentence_transformers, "float32", "torch"),
    "sentence-transformers bf16": (sentence_transformers, "bfloat16", "torch"),
    "llama.cpp q8_0": (llama_cpp, "q8_0", "llama"),
}
REFERENCE = "fastrank fp32"


def serve(engine: str, folder: Path, threads: int) -> None:
    """Open an engine and answer each line of standard input, "queries" or "documents", with a line of JSON."""
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr  # what an engine prints is not for the reader
    os.dup2(2, 1)
    start = time.perf_counter()
    open_, precision, _ = ENGINES[engine]
    embed = open_(folder, threads, precision)
    print(json.dumps({"seconds": time.perf_counter() - start, "memory": megabytes()}), file=answers, flush=True)
    for line in sys.stdin:
        count, length = QUERIES if line.strip() == "queries" else DOCUMENTS
        ids = texts(count, count, length)
        start = time.perf_counter()
        vectors = np.concatenate([embed([text]) for text in ids]) if line.strip() == "queries" else embed(ids)
        facts = {"seconds": time.perf_counter() - start, "memory": megabytes(), "vectors": vectors.tolist()}
        print(json.dumps(facts), file=answers, flush=True)


def megabytes() -> float:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


# -- the comparison ---------------------------------------------------------------------------------------------------


class Process:
    """An engine in a process."""

    def __init__(self, name: str, python: str, folder: Path, threads: int) -> None:
        command = [python, __file__, "--serve", name, str(folder), "--threads", str(threads)]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.opened = self._read()

    def run(self, what: str) -> dict[str, Any]:
        """Embed the queries or the documents."""
        if self._process.stdin is None:
            raise RuntimeError("no pipe")
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        found: dict[str, Any] = json.loads(line)
        return found


def compare(
    folder: Path, names: Sequence[str], pythons: dict[str, str], threads: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Megabytes, tokens a second and cosine to our fp32 of each engine."""
    processes: dict[str, Process] = {}
    try:
        for name in names:
            _, precision, needs = ENGINES[name]
            if needs == "" and precision not in ("fp32", "auto"):
                Process(name, pythons[needs], folder, threads).close()  # which makes the weights
            processes[name] = Process(name, pythons[needs], folder, threads)
        found: dict[str, dict[str, list[Any]]] = {name: {"queries": [], "documents": []} for name in names}
        for number in range(rounds + 1):  # the first to warm up
            for name in names if number % 2 else names[::-1]:
                for what, runs in found[name].items():
                    runs.append(processes[name].run(what))
        rows = {}
        exact = np.array(found[REFERENCE]["documents"][-1]["vectors"]) if REFERENCE in found else None
        for name, kinds in found.items():
            tokens = {"queries": QUERIES[0] * QUERIES[1], "documents": DOCUMENTS[0] * DOCUMENTS[1]}
            speeds = {
                kind: tokens[kind] / float(np.median([run["seconds"] for run in runs[1:]]))
                for kind, runs in kinds.items()
            }
            vectors = np.array(kinds["documents"][-1]["vectors"])
            lengths = np.linalg.norm(vectors, axis=1)
            rows[name] = {
                "load s": processes[name].opened["seconds"],
                "loaded MB": processes[name].opened["memory"],
                "used MB": max(run["memory"] for runs in kinds.values() for run in runs),
                **{f"tokens/s, {kind}": speed for kind, speed in speeds.items()},
                "cosine": None if exact is None else float(((vectors * exact).sum(axis=1) / lengths).mean()),
            }
        return rows
    finally:
        for process in processes.values():
            process.close()


def main() -> None:
    """Compare and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--serve", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python with sentence-transformers")
    parser.add_argument("--llama", metavar="PYTHON", help="a Python with xllamacpp and gguf")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--threads", type=int, default=2, help="of each engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--folder", type=Path, help="where models are written and kept (default: for now only)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]), options.threads)
        return
    machine: Any = importlib.import_module("common.machine")
    pythons = {"": sys.executable, "torch": options.torch, "llama": options.llama}
    facts: dict[str, Any] = {"machine": machine.describe()}
    with tempfile.TemporaryDirectory() as scratch:
        for shape in options.shapes:
            folder = (options.folder or Path(scratch)) / shape
            if not (folder / "tokenizer_config.json").is_file():
                prepare(folder, SHAPES[shape])
            names = [
                name
                for name in options.engines
                if pythons[ENGINES[name][2]] and (ENGINES[name][2] != "llama" or is_qwen(folder))
            ]
            facts[shape] = compare(folder, names, pythons, options.threads, options.rounds)
            show(shape, facts[shape])
    print(json.dumps(facts["machine"]))
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def show(shape: str, rows: dict[str, dict[str, Any]]) -> None:
    """The rows as Markdown."""
    columns = list(next(iter(rows.values())))
    print(f"\n| {shape} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, row in rows.items():
        cells = [_shown(value) for value in row.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value <= 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    main()
