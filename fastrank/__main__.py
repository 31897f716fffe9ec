"""`python -m fastrank` is the `fastrank` command."""

import sys

from fastrank.cli import main

sys.exit(main())
