"""How to look a model's files up, as the constructors of the public classes take it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Lookup(NamedTuple):
    """Where a model's files may come from.

    Attributes:
        cache_dir: the cache folder; None: FASTRANK_CACHE, else the user's.
        path: a folder of the caller's own, used as it is.
        local_files_only: open no connection. FASTRANK_OFFLINE, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE do the same.
        variant: the variant to use; None: the first that is on this machine, else the first that can be fetched.
        verify: hash files that are on this machine already, too.
    """

    cache_dir: str | Path | None = None
    path: str | Path | None = None
    local_files_only: bool = False
    variant: str | None = None
    verify: bool = False


ANYWHERE = Lookup()
