"""How big an installation is: `python scripts/size.py FOLDER [--limit MB]`, for what `pip install --target` wrote.

Bytes of all files, without compiled Python (pip's --no-compile). 1 MB is 1,048,576 bytes, as `du` and AWS Lambda count,
which allows 250 MB for a function and its layers together. Exit status 1 over the limit.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

SHOWN = 8
MB = 1 << 20


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
        print(f"{size / MB:8.1f} MB  {name}")
    total = found.total() / MB
    limit = f", limit {options.limit:g} MB" if options.limit else ""
    print(f"{total:8.1f} MB  in all of {options.folder}, {found.total():,} bytes{limit}")
    return 1 if options.limit and total > options.limit else 0


if __name__ == "__main__":
    raise SystemExit(main())
