"""What a benchmark ran on. A figure without its machine and versions says nothing."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import fastrank
from fastrank.engine import cpu

_INSTRUCTIONS = {  # flags of Linux -> names
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "i8mm",
    "sve": "SVE",
}


def describe() -> dict[str, str | int]:
    """The processor, how many of its cores this process may use, and the versions that matter."""
    return {
        "cpu": _cpu(),
        "instructions": _instructions(),
        "cores": cpu.available(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime", "onnxruntime-gpu"),
        "numpy": _version("numpy"),
        "fastrank": fastrank.__version__,
    }


def _cpu() -> str:
    """The model's name as the system tells it, else its architecture."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
        return name or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # Windows
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _instructions() -> str:
    """The instruction sets that speed of matrix products depends on, as far as the system tells them."""
    if sys.platform == "darwin":
        return "not known"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # Windows
        return "not known"
    lines = (line.partition(":")[2].split() for line in text.splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, []))
    return ", ".join(name for flag, name in _INSTRUCTIONS.items() if flag in flags) or "none of those looked for"


def _version(*distributions: str) -> str:
    """The version of the first of these that is installed."""
    installed = (found.version for name in distributions for found in metadata.distributions(name=name))
    return next(installed, "not installed")
