"""Time and memory of long texts: attention in blocks, attention as plain operators, and transformers with torch's sdpa.

    python benchmarks/long_texts.py --reference /path/to/python               # one that has torch and transformers
    python benchmarks/long_texts.py --reference /path/to/python --models "ModernBERT, 12 heads" --lengths 8192

Models have real shapes, few layers and random weights, which `--reference` makes. Each run is a process of its own, on
one thread; arms take turns. Seconds are those of the CPU, the least of a few runs of one text; the memory is the peak
of the process, and how far it is above what the process holds after a text of 16 tokens. Outputs are compared first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

_MODELS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "ModernBERT, 4 heads": (
        "ModernBert",
        {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 4},
    ),
    "ModernBERT, 12 heads": ("ModernBert", {"num_hidden_layers": 4}),
    "EmbeddingGemma": (
        "Gemma3Text",
        {"hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 6, "num_attention_heads": 3}
        | {"num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512, "use_bidirectional_attention": True},
    ),
    "NomicBERT, 12 heads": ("NomicBert", {"num_hidden_layers": 3, "max_position_embeddings": 8192}),
    "Qwen3 0.6B": (
        "Qwen3",
        {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 16}
        | {"num_key_value_heads": 8, "head_dim": 128},
    ),
}
_VOCABULARY: Final = 2000
_ARMS: Final = ("blocks", "plain", "torch")


def _ids(length: int) -> Any:
    import numpy as np

    return np.random.default_rng(length).integers(5, _VOCABULARY, (1, length))


def _peak() -> float:
    """The most memory that this process had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def make(name: str, folder: Path) -> None:
    """Write a checkpoint with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind, sizes = _MODELS[name]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    special |= {"cls_token_id": 1, "sep_token_id": 2} if kind == "ModernBert" else {}
    config = getattr(transformers, f"{kind}Config")(vocab_size=_VOCABULARY, **sizes, **special)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)


def run(arm: str, folder: Path, length: int, repeats: int, output: Path) -> dict[str, float]:
    """One arm, in this process."""
    import time

    import numpy as np

    if arm == "torch":
        import torch
        import transformers

        torch.set_num_threads(1)
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()

        def states(ids: Any) -> Any:
            with torch.no_grad():
                return model(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()
    else:
        from functools import partial

        from fastrank import graph
        from fastrank.engine.batching import Batch
        from fastrank.engine.options import Options
        from fastrank.engine.session import Model, Session

        build = partial(graph.build, folder, plain=arm == "plain")
        session = Session(Model(folder / "model.safetensors", build), Options(threads=1, cuda=False))

        def states(ids: Any) -> Any:
            return session.run(Batch([0], ids, np.ones_like(ids), np.zeros_like(ids)))

    states(_ids(16))
    before, seconds = _peak(), []
    for _ in range(repeats):
        start = time.process_time()
        found = states(_ids(length))
        seconds.append(time.process_time() - start)
    np.save(output, found[0, :: max(1, length // 64)])
    return {"seconds": min(seconds), "peak_mb": _peak(), "above_mb": _peak() - before}


def _child(python: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [python, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def measure(reference: str, models: Sequence[str], lengths: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """A row for each model, length and arm."""
    import numpy as np

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(models):
            folder = Path(scratch, str(number))
            _child(reference, "--make", name, str(folder))
            for length in lengths:
                found: dict[str, list[dict[str, float]]] = {arm: [] for arm in _ARMS}
                for round_number in range(rounds):
                    for arm in _ARMS if round_number % 2 else _ARMS[::-1]:
                        python = reference if arm == "torch" else sys.executable
                        repeats = "1" if length > 4000 else "5"
                        given = ("--run", arm, str(folder), str(length), repeats, str(Path(scratch, f"{arm}.npy")))
                        found[arm].append(json.loads(_child(python, *given)))
                outputs = {arm: np.load(Path(scratch, f"{arm}.npy")) for arm in _ARMS}
                for arm in _ARMS:
                    row = {key: median(each[key] for each in found[arm]) for key in found[arm][0]}
                    difference = float(np.abs(outputs[arm] - outputs["torch"]).max())
                    rows.append({"model": name, "tokens": length, "arm": arm, **row, "difference": difference})
                    print(table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a row."""
    lines = [f"{'':22} {'tokens':>7} {'arm':>7} {'CPU s':>8} {'peak MB':>8} {'above':>8} {'difference':>10}"]
    lines += [
        f"{row['model']:22} {row['tokens']:7} {row['arm']:>7} {row['seconds']:8.3f} {row['peak_mb']:8.0f} "
        f"{row['above_mb']:8.0f} {row['difference']:10.1e}"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--make"]:
        make(given[1], Path(given[2]))
        return 0
    if given[:1] == ["--run"]:
        print(json.dumps(run(given[1], Path(given[2]), int(given[3]), int(given[4]), Path(given[5]))))
        return 0
    from common import interleaved, machine

    parser = argparse.ArgumentParser(description="Time and memory of long texts.")
    parser.add_argument("--reference", default=sys.executable, metavar="PYTHON", help="has torch and transformers")
    parser.add_argument(
        "--models", nargs="+", choices=_MODELS, default=list(_MODELS), metavar="MODEL", help="%(choices)s"
    )
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each arm (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    options = parser.parse_args(given)
    versions = "import json, torch, transformers as t; print(json.dumps([torch.__version__, t.__version__]))"
    command = [options.reference, "-c", versions]
    torch, transformers = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603
    about = {**machine.describe(), "onnx": interleaved.version("onnx"), "torch": torch, "transformers": transformers}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table([]))
    rows = measure(options.reference, options.models, options.lengths, options.rounds)
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
