"""Threads come from what this process may use."""

import os

import pytest

from fastrank.engine import cpu


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    root, membership = tmp_path / "cgroup", tmp_path / "self"
    root.mkdir()
    monkeypatch.setattr(cpu, "_CGROUP", root)
    quota = cpu._quota
    monkeypatch.setattr(cpu, "_quota", lambda _root, _membership: quota(root, membership))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)

    def write(files, groups="0::/\n"):
        membership.write_text(groups)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)

    return write


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_the_quota_lowers_the_count(cgroup, content, count):
    cgroup({"cpu.max": content})
    assert cpu.available() == count


def test_the_smallest_quota_of_all_parents_counts(cgroup):
    cgroup({"pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 100000"}, "0::/pod/box\n")
    assert cpu.available() == 3


def test_the_first_version_of_cgroups(cgroup):
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}
    cgroup(files, "12:memory:/\n4:cpu,cpuacct:/job\n1:name=systemd:/x\n")
    assert cpu.available() == 4


def test_affinity_counts_where_there_are_no_cgroups(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3}, raising=False)
    assert cpu.available() == 1


def test_systems_without_affinity(cgroup, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cpu.available() == 5


@pytest.mark.parametrize(
    ("machine", "content", "expected"),
    [
        ("aarch64", "", True),
        ("arm64", "", True),
        ("x86_64", "processor : 0\nflags\t\t: fpu avx512_vnni sse\n", True),
        ("x86_64", "flags\t\t: fpu avx_vnni\n", True),
        ("x86_64", "flags\t\t: fpu avx2\n", False),
        ("AMD64", "", None),
    ],
)
def test_exact_sums_of_bytes(monkeypatch, tmp_path, machine, content, expected):
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    assert cpu.adds_bytes_exactly() is expected
