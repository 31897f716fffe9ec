"""embed.py on a GPU: fastrank in fp16 and fp32, FastEmbed, and sentence-transformers in fp16 and fp32.

    pip install onnx torch sentence-transformers fastembed-gpu      # and onnxruntime-gpu alone: docs/gpu.md
    python benchmarks/gpu.py
    python benchmarks/gpu.py path/to/scifact --documents 5000 --json benchmarks/results/embed-gpu.json
    python benchmarks/gpu.py --device cpu --documents 64 --rounds 1          # only to try the command

All run on the first GPU in one process; texts, weights, limits, comparison and figures are those of embed.py. Texts a
second and the milliseconds of single queries are absolute. Ratios are to fastrank in fp32, which is float32 indeed; as
FastEmbed comes, onnxruntime computes in TF32. Nothing is measured where CUDA cannot be used.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import embed
from common import engines

from fastrank.engine.providers import runtime

CUDA = "CUDAExecutionProvider"


def gpu() -> str:
    """The card and its driver, as the driver says."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    command = embed.parser("Speed of dense vectors on a GPU, side by side with peers.", engines.ON_GPU, documents=8192)
    command.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    given = command.parse_args(arguments)
    if given.device == "cpu":
        return embed.run(command, given)
    version, providers = runtime()
    if CUDA not in providers:
        command.exit(
            2,
            f"onnxruntime {version} has no CUDA, only {', '.join(providers)}: nothing was measured. docs/gpu.md says "
            "how to install onnxruntime-gpu; --device cpu tries this command without.\n",
        )
    return embed.run(command, given, "cuda", gpu=gpu())


if __name__ == "__main__":
    sys.exit(main())
