"""`importlib.metadata` answers for a FastEmbed that is not installed: programs ask for its version."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from os import PathLike
from pathlib import Path
from types import ModuleType

NAME = "fastembed"
VERSION = "0.9.1"  # the FastEmbed whose API is served


class _FastEmbed(Distribution):
    """A distribution without files."""

    def read_text(self, filename: str) -> str | None:
        """Its metadata, and the name of its package."""
        return {
            "METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\nSummary: served by fastrank\n",
            "top_level.txt": f"{NAME}\n",
        }.get(filename)

    def locate_file(self, path: str | PathLike[str]) -> Path:
        """Where a file would be."""
        return Path(path)


class _Finder(DistributionFinder):
    """Finds no modules (those stand in `sys.modules`), and one distribution if no real one is installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """None: modules are found elsewhere."""

    def find_distributions(
        self,
        context: DistributionFinder.Context = DistributionFinder.Context(),  # noqa: B008 - as the base class has it
    ) -> Iterator[Distribution]:
        """Our distribution, where it or all are asked for, on the whole of `sys.path`, and no real one is there."""
        asked = context.name is None or context.name.lower() == NAME
        if not asked or "path" in vars(context):
            return
        if not any(MetadataPathFinder.find_distributions(DistributionFinder.Context(name=NAME))):
            yield _FastEmbed()


_finder = _Finder()


def install() -> None:
    """Let `importlib.metadata.version("fastembed")` answer."""
    sys.meta_path.append(_finder)


def uninstall() -> None:
    """Undo `install`."""
    sys.meta_path.remove(_finder)
