"""How big an installation is: `python scripts/size.py FOLDER [--limit MB]`, for what `pip install --target` wrote.

Bytes of all files, without compiled Python (pip's --no-compile), 1 MB = 1,000,000 bytes. Exit status 1 over the limit.
AWS Lambda allows 262 MB (250 MiB) for a function and its layers together.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

SHOWN = 8


def sizes(folder: Path) -> Counter[str]:
    """Bytes by top folder or file."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            found[path.relative_to(folder).parts[0]] += path.stat().st_size
    return found


def main() -> int:
    """Print the biggest parts and the sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=float, metavar="MB")
    options = parser.parse_args()
    found = sizes(options.folder)
    for name, size in found.most_common(SHOWN):
        print(f"{size / 1e6:8.1f} MB  {name}")
    total = found.total() / 1e6
    print(f"{total:8.1f} MB  in all of {options.folder}" + (f", limit {options.limit:g}" if options.limit else ""))
    return 1 if options.limit and total > options.limit else 0


if __name__ == "__main__":
    raise SystemExit(main())
