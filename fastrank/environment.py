"""The environment variables fastrank reads, and nothing else. No other module reads `os.environ`.

FASTRANK_CACHE     where models are kept (default: the user's cache folder)
FASTRANK_OFFLINE   1: never open a connection (HF_HUB_OFFLINE counts as well, and TRANSFORMERS_OFFLINE unless that is
                   set: as for huggingface_hub); read at every call
FASTRANK_PROGRESS  0: no progress bars; 1: bars even where there is no terminal
NO_COLOR           set: no colours on a terminal; nor with TERM=dumb
FASTEMBED_CACHE_PATH   as FASTRANK_CACHE, for programs written for FastEmbed
FASTRANK_SERVE_*   options of `fastrank serve`: FASTRANK_SERVE_MAX_INPUTS is --max-inputs
FASTRANK_API_KEY   a key that `fastrank serve` asks its clients for
TIKTOKEN_CACHE_DIR where tiktoken keeps its tables
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_TRUE = {"1", "true", "yes", "on"}


def cache_root() -> Path:
    """The folder under which models are kept. It may not exist yet.

    Raises:
        OSError: neither FASTRANK_CACHE nor a home folder is known (as in some containers).
    """
    if chosen := os.environ.get("FASTRANK_CACHE"):
        return expanded(chosen, "FASTRANK_CACHE").absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return (Path(base).expanduser() / "fastrank").absolute()
    except RuntimeError:
        raise OSError(
            "No home folder is known here, so there is no place for models. Set FASTRANK_CACHE to a folder."
        ) from None


def has_cache_root() -> bool:
    """Whether FASTRANK_CACHE is set, or there is a home folder for models to be kept in."""
    if os.environ.get("FASTRANK_CACHE"):
        return True
    try:
        cache_root()
    except OSError:
        return False
    return True


def expanded(folder: str, name: str) -> Path:
    """A folder with `~` and `~user` replaced by a home folder; `name` says where it comes from.

    Raises:
        OSError: there is no such user, or no home folder is known.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise OSError(
            f"{name}={folder!r} names a home folder that is not known here. Name the folder in full"
        ) from None


def fastembed_cache() -> str | None:
    """Where a program written for FastEmbed is told to keep models, unless fastrank is told so itself."""
    return None if os.environ.get("FASTRANK_CACHE") else os.environ.get("FASTEMBED_CACHE_PATH") or None


def leave_program(path: str) -> None:
    """Tell processes started by this one which program `python -m fastrank.compat.fastembed` runs."""
    os.environ["FASTRANK_COMPAT_PROGRAM"] = path


def left_program() -> str:
    """What `leave_program` left in the process that started this one."""
    return os.environ["FASTRANK_COMPAT_PROGRAM"]


def packaged_text(package: str, name: str) -> str:
    """A text file of one of our packages, which is imported; also where they are in a zip file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(str(sys.modules[package].__file__)).parent / name
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        from importlib import resources  # 10 ms, which most processes need not spend

        return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def offline() -> bool:
    """Whether the user has switched connections off.

    TRANSFORMERS_OFFLINE counts only while HF_HUB_OFFLINE is empty: so huggingface_hub.constants has it.
    """
    hub = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE", "")
    return any(value.lower() in _TRUE for value in (os.environ.get("FASTRANK_OFFLINE", ""), hub))


def progress() -> bool:
    """Whether to draw progress bars: FASTRANK_PROGRESS if set, else only on a terminal."""
    if wish := os.environ.get("FASTRANK_PROGRESS"):
        return wish.lower() in _TRUE
    return sys.stderr is not None and sys.stderr.isatty()


def colours() -> bool:
    """Whether a terminal is to show colours: neither NO_COLOR is set nor TERM=dumb."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def serve_option(name: str) -> str | None:
    """The value of an option of `fastrank serve`, such as "max_inputs"; None: it is not set."""
    return os.environ.get(f"FASTRANK_SERVE_{name.upper()}") or None


def api_key() -> str | None:
    """The key that `fastrank serve` asks its clients for; None: none is needed."""
    return os.environ.get("FASTRANK_API_KEY") or None


def tiktoken_cache() -> str | None:
    """Where tiktoken keeps its tables, if that is set."""
    return os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or None


def point_clients(*, cohere: str, openai: str) -> None:
    """Tell Cohere's and OpenAI's clients of this process, and of those it starts, where their API is."""
    os.environ["CO_API_URL"] = cohere
    os.environ["OPENAI_BASE_URL"] = openai


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes, for a child process."""
    return {**os.environ, **changes}


def silence_onnxruntime_telemetry() -> None:
    """Switch off onnxruntime's telemetry unless the user has decided. Only works before it is imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
