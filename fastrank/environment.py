"""The environment variables that fastrank reads. No other module reads `os.environ`.

FASTRANK_CACHE     folder for downloaded models (default: in the user's cache folder)
FASTRANK_OFFLINE   1: never open a connection; read at every call. HF_HUB_OFFLINE counts too and, if that is unset,
                   TRANSFORMERS_OFFLINE, as in huggingface_hub
FASTRANK_THREADS   CPU threads of a model in `fastrank.bulk`, instead of what the engine granted in OMP_NUM_THREADS
FASTRANK_PROGRESS  0: no progress bars; 1: progress bars even without a terminal
NO_COLOR           set: no colours in the terminal; the same with TERM=dumb
FASTEMBED_CACHE_PATH   the same as FASTRANK_CACHE, for programs written for FastEmbed
FASTRANK_SERVE_*   options of `fastrank serve`: FASTRANK_SERVE_MAX_INPUTS is --max-inputs
FASTRANK_API_KEY   a key that `fastrank serve` requires of its clients
TIKTOKEN_CACHE_DIR where tiktoken caches its vocabularies
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_TRUE = {"1", "true", "yes", "on"}


def cache_root() -> Path:
    """The folder for downloaded models. It may not exist yet.

    Raises:
        OSError: FASTRANK_CACHE is unset and there is no home folder (as in some containers).
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
        raise OSError("There is no home folder here to keep models in. Set FASTRANK_CACHE to a folder.") from None


def has_cache_root() -> bool:
    """Whether there is a folder for models: FASTRANK_CACHE, or one in a home folder."""
    if os.environ.get("FASTRANK_CACHE"):
        return True
    try:
        cache_root()
    except OSError:
        return False
    return True


def expanded(folder: str, name: str) -> Path:
    """A folder with `~` and `~user` expanded; `name` is the variable or option it comes from.

    Raises:
        OSError: there is no such user, or no home folder.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise OSError(
            f"{name}={folder!r} names a home folder that does not exist here. Give the full path of the folder"
        ) from None


def fastembed_cache() -> str | None:
    """FASTEMBED_CACHE_PATH; None if it is unset or FASTRANK_CACHE is set."""
    return None if os.environ.get("FASTRANK_CACHE") else os.environ.get("FASTEMBED_CACHE_PATH") or None


def set_compat_program(path: str) -> None:
    """Pass the program that `python -m fastrank.compat.fastembed` runs on to its child processes."""
    os.environ["FASTRANK_COMPAT_PROGRAM"] = path


def compat_program() -> str:
    """The program that `set_compat_program` named in the parent process."""
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

    TRANSFORMERS_OFFLINE counts only while HF_HUB_OFFLINE is empty, as in huggingface_hub.constants.
    """
    hub = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE", "")
    return any(value.lower() in _TRUE for value in (os.environ.get("FASTRANK_OFFLINE", ""), hub))


def bulk_threads() -> int | None:
    """FASTRANK_THREADS: CPU threads that `fastrank.bulk` uses; None: unset.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    value = os.environ.get("FASTRANK_THREADS", "").strip()
    if not value:
        return None
    if not value.isascii() or not value.isdecimal() or not int(value):
        raise ValueError(f"FASTRANK_THREADS={value!r} must be a whole number >= 1")
    return int(value)


def granted_threads() -> int | None:
    """OMP_NUM_THREADS, where Ray, Spark, Dask and Slurm state the CPUs that they grant; None: unset, or no number.

    It may have one number for each level of nesting, of which the first counts.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(value) if value.isascii() and value.isdecimal() and int(value) else None


def progress() -> bool:
    """Whether to draw progress bars: FASTRANK_PROGRESS if set, else only on a terminal."""
    if wish := os.environ.get("FASTRANK_PROGRESS"):
        return wish.lower() in _TRUE
    return sys.stderr is not None and sys.stderr.isatty()


def colours() -> bool:
    """Whether a terminal is to show colours: neither NO_COLOR is set nor TERM=dumb."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def serve_option(name: str) -> str | None:
    """The value of an option of `fastrank serve`, such as "max_inputs"; None if unset."""
    return os.environ.get(f"FASTRANK_SERVE_{name.upper()}") or None


def api_key() -> str | None:
    """The key that `fastrank serve` requires of its clients; None: no key."""
    return os.environ.get("FASTRANK_API_KEY") or None


def tiktoken_cache() -> str | None:
    """The folder where tiktoken caches its vocabularies; None if unset."""
    return os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or None


def point_clients(*, cohere: str, openai: str) -> None:
    """Tell Cohere's and OpenAI's clients of this process, and of those it starts, where their API is."""
    os.environ["CO_API_URL"] = cohere
    os.environ["OPENAI_BASE_URL"] = openai


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment plus `changes`, for a child process."""
    return {**os.environ, **changes}


def silence_onnxruntime_telemetry() -> None:
    """Disable onnxruntime's telemetry unless the user has decided. Only works before onnxruntime is imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
