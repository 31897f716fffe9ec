"""Whether others may change files of the cache, as ssh asks of its keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from fastrank import log

_warned: set[Path] = set()


def others_may_write(root: Path, folder: Path) -> str | None:
    """Why a model folder of the cache at `root`, or what lies in it, may be changed by others; None: it may not.

    Windows' access lists are not looked at.
    """
    if os.name == "nt":
        return None
    above = [parent for parent in folder.parents if parent == root or root in parent.parents]
    return _exposed([*above, root / "verified", folder, *folder.rglob("*")])


def warn_once(root: Path, why: str) -> None:
    """Say that the cache at `root` may be changed by others, once per process."""
    if root not in _warned:
        _warned.add(root)
        log.warning(
            "%s, so others may change the models in the cache. Their files are hashed at every load for that. Models "
            "that the registry does not pin are not protected. Run: chmod -R go-w %s",
            why,
            root,
        )


def _exposed(paths: Iterable[Path]) -> str | None:
    me = os.geteuid()
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_uid not in (me, 0):
            return f"{path} belongs to another user (uid {status.st_uid})"
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:  # as /tmp: only owners replace what is there
            continue
        if status.st_mode & stat.S_IWOTH:
            return f"{path} can be written by everybody (mode {stat.S_IMODE(status.st_mode):o})"
        if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid):
            return f"{path} can be written by its group (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def _is_private(group: int) -> bool:
    """Whether a group is a user's own and nobody else is in it, as many systems make one for each user."""
    import grp
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
        found = grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}
