"""`fastrank cache`: show where models are kept, which and how large; remove them."""

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
        description="Show where models are kept, which ones and how large; or remove some.",
    )
    parser.add_argument("--cache-dir", metavar="FOLDER", help="the cache to look at (FASTRANK_CACHE)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", nargs="+", metavar="MODEL", help="remove these models")
    what.add_argument(
        "--clear", action="store_true", help="remove everything that fastrank stored there, broken downloads included"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show or remove."""
    if options.clear:
        return _clear(options.cache_dir)
    contents = store.contents(options.cache_dir)
    if options.remove:
        return _remove(options.remove, contents)
    print(store.find_root(options.cache_dir) or "no cache: there is no home folder; set FASTRANK_CACHE")
    for model in contents:
        print(f"{_megabytes(model.size)}  {model.model}  {model.variant}  {model.folder.name}")
    print(f"{_megabytes(sum(model.size for model in contents))}  in {len(contents)} models")
    for package in packages.packages():
        size = sum(file.size or 0 for file in package.manifest.files) if package.manifest else 0
        variant = package.manifest.variant if package.manifest else "?"
        print(f"{_megabytes(size)}  {package.model}  {variant}  installed: {package.folder}")
    return 0


def _clear(cache_dir: str | None) -> int:
    """Clear the cache; say what went, what stayed and why."""
    removed, size = 0, 0
    for each in store.clear(cache_dir):
        if each.left:
            print(f"fastrank: left {each.path}: {each.left}", file=sys.stderr)
        else:
            print(f"{_megabytes(each.size)}  removed {each.what}  {each.path}")
            removed, size = removed + 1, size + each.size
    print(f"{_megabytes(size)}  removed from {store.root(cache_dir)}, {removed} in all")
    return 0


def _remove(names: list[str], contents: list[store.CachedModel]) -> int:
    status = 0
    for name in names:
        found = [model for model in contents if model.model.casefold() == name.casefold()]
        for model in found:
            if left := store.remove(model):
                print(f"fastrank: left {model.folder}: {left}", file=sys.stderr)
                status = 1
            else:
                print(f"removed {model.model} {model.variant}, {model.size / 1e6:.1f} MB")
        if not found:
            print(f"fastrank: {name} is not in the cache", file=sys.stderr)
            status = 1
    return status


def _megabytes(size: int) -> str:
    return f"{size / 1e6:9.1f} MB"
