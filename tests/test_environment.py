"""Environment variables."""

import sys
from pathlib import Path

import pytest

from fastrank import environment


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("YES", True), ("0", False), ("", False)])
@pytest.mark.parametrize("name", ["FASTRANK_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_is_read_at_every_call(monkeypatch, name, value, expected):
    assert environment.offline() is False
    monkeypatch.setenv(name, value)
    assert environment.offline() is expected


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTRANK_CACHE", str(tmp_path / "here"))
    assert environment.cache_root() == tmp_path / "here"
    monkeypatch.setenv("FASTRANK_CACHE", "~/models")
    assert environment.cache_root() == Path.home() / "models"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x/cache"}, "/x/cache/fastrank"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/fastrank"),
        ("darwin", {}, "/home/me/Library/Caches/fastrank"),
        ("win32", {"LOCALAPPDATA": "/users/me/local"}, "/users/me/local/fastrank"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX paths")
def test_the_default_cache_is_the_platforms(monkeypatch, platform, variables, expected):
    monkeypatch.delenv("FASTRANK_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.cache_root() == Path(expected)


def test_no_home_at_all_names_the_variable(monkeypatch):
    monkeypatch.delenv("FASTRANK_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(OSError, match="Set FASTRANK_CACHE to a folder"):
        environment.cache_root()


def test_progress_bars_need_a_terminal_or_a_wish(monkeypatch):
    monkeypatch.delenv("FASTRANK_PROGRESS")
    monkeypatch.setattr(sys, "stderr", None)  # pythonw
    assert environment.progress() is False
    monkeypatch.setenv("FASTRANK_PROGRESS", "1")
    assert environment.progress() is True
