"""Models in packages that are installed in this environment. `fastrank pack` makes such packages.

A package announces its model by an entry point `model name = package` of the group `fastrank.models`. Its folder has
the model's files and, if `fastrank pack` made it, a manifest.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ENTRY_POINTS = "fastrank.models"
MANIFEST = "fastrank.json"  # model, variant, source, and size and SHA-256 of each file; in a cache's folders as well


class Package(NamedTuple):
    """An installed package with a model; `manifest` is empty if it has none."""

    model: str
    folder: Path
    manifest: dict[str, Any]


def packages(model: str | None = None) -> Iterator[Package]:
    """Installed packages, or those with this model, in the order of the import path. None of their code is run."""
    if not any(_announces(place) for place in _descriptions()):
        return
    import importlib.metadata
    import importlib.util

    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if model is not None and point.name.casefold() != model.casefold():
            continue
        found = importlib.util.find_spec(point.module)
        for place in (found.submodule_search_locations or []) if found else []:
            yield Package(point.name, Path(place), read_manifest(Path(place)))


def has_distribution(name: str) -> bool:
    """Whether a distribution of this name may be installed, in whatever version."""
    normal = re.sub(r"[-_.]+", "_", name).lower()
    return any(re.sub(r"[-.]+", "_", place.name).lower().startswith(f"{normal}_") for place in _descriptions())


def _descriptions() -> Iterator[Path]:
    """What installers wrote of each distribution on the import path: listed in 2 ms.

    importlib.metadata knows more about them, but to import it alone takes 15 ms of a cold start.
    """
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or os.curdir) as entries:
                yield from (Path(entry.path) for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
        except OSError:  # no folder; a model in a zip file could not be mapped into memory
            continue


def _announces(description: Path) -> bool:
    try:
        return ENTRY_POINTS in (description / "entry_points.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """What was written beside the files when they were published; empty if nothing was."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
