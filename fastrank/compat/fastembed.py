"""Programs written for FastEmbed, run on fastrank.

One line before the program's own imports:

    import fastrank.compat.fastembed

or the program as it is:

    python -m fastrank.compat.fastembed program.py arguments...

From then on `import fastembed` gives fastrank's classes (see `fastrank.compat.classes` for how they behave), in this
process only. `uninstall()` undoes it.
"""

from __future__ import annotations

import runpy
import sys

from fastrank import environment
from fastrank.compat.fake_modules import install, run, uninstall

__all__ = ["install", "uninstall"]

install()

if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit("usage: python -m fastrank.compat.fastembed program.py [arguments ...]")
    run(sys.argv[1], sys.argv[2:])
elif __name__ == "__mp_main__":  # a process started by such a program needs what the program defines
    globals().update(runpy.run_path(environment.compat_program(), run_name=__name__))
