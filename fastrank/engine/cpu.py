"""The CPU: how many cores this process may use, and which instructions they have.

The number is that of CPU affinity and container quota, not of the host. onnxruntime considers neither: in a container
with a quota of one CPU on a 64-core host it would start 64 threads.
"""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")  # Linux


def available() -> int:
    """CPU cores this process may use, at least 1: its affinity, limited by the cgroup's CPU quota (v1 and v2)."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    quota = _quota(_CGROUP, Path("/proc/self/cgroup"))
    return max(1, min(count, math.ceil(quota)) if quota else count)


def adds_bytes_exactly() -> bool | None:
    """Whether products of 8-bit integers are summed in 32 bits, as with VNNI and on ARM; None: unknown.

    x86 CPUs without VNNI sum pairs of products in 16 bits, which can saturate.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    flags = re.search(r"^flags\s*:(.*)$", _read(_CPUINFO), re.MULTILINE)
    return bool({"avx512_vnni", "avx_vnni"} & set(flags[1].split())) if flags else None


def _quota(root: Path, membership: Path) -> float | None:
    """The smallest quota of this process's cgroup and its parents, in CPUs; None: no quota."""
    quotas = []
    for line in _read(membership).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base, read = root, _v2
        elif "cpu" in controllers.split(","):
            base, read = root / controllers, _v1
        else:
            continue
        group = base / path.lstrip("/")
        while True:
            quotas.append(read(group))
            if group == base or base not in group.parents:
                break
            group = group.parent
    return min((quota for quota in quotas if quota), default=None)


def _v2(group: Path) -> float | None:
    limit, _, period = _read(group / "cpu.max").partition(" ")
    return _ratio(limit, period)


def _v1(group: Path) -> float | None:
    return _ratio(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _ratio(limit: str, period: str) -> float | None:
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
