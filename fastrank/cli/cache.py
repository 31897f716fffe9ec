"""`fastrank cache`: where models are kept, what is there, how big it is, and removing it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastrank import store
from fastrank.models import packages


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "cache",
        help="show or clear the cache",
        description="Show where models are kept, which are there and how big they are; or remove some.",
    )
    parser.add_argument("--cache-dir", metavar="FOLDER", help="the cache to look at (FASTRANK_CACHE)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", nargs="+", metavar="MODEL", help="remove these models")
    what.add_argument("--clear", action="store_true", help="remove everything, and what broken downloads left")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show or remove."""
    contents = store.contents(options.cache_dir)
    if options.clear:
        store.clear(options.cache_dir)
        print(f"removed {len(contents)} models from {store.root(options.cache_dir)}")
        return 0
    if options.remove:
        return _remove(options.remove, contents)
    print(store.root(options.cache_dir))
    for entry in contents:
        print(f"{entry.size / 1e6:9.1f} MB  {entry.model}  {entry.variant}  {entry.folder.name}")
    print(f"{sum(entry.size for entry in contents) / 1e6:9.1f} MB  in {len(contents)} models")
    for package in packages.packages():
        size = sum(file.size or 0 for file in package.manifest.files) if package.manifest else 0
        variant = package.manifest.variant if package.manifest else "?"
        print(f"{size / 1e6:9.1f} MB  {package.model}  {variant}  installed: {package.folder}")
    return 0


def _remove(names: list[str], contents: list[store.Entry]) -> int:
    status = 0
    for name in names:
        found = [entry for entry in contents if entry.model.casefold() == name.casefold()]
        for entry in found:
            store.remove(entry)
            print(f"removed {entry.model} {entry.variant}, {entry.size / 1e6:.1f} MB")
        if not found:
            print(f"fastrank: {name} is not in the cache", file=sys.stderr)
            status = 1
    return status
