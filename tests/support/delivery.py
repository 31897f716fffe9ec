"""Names that have moved: `support.pinned_model` and `support.processes`."""

from support.pinned_model import FILES, REPO, content, entry, leftovers, pinned
from support.processes import ends_well, python

__all__ = ["FILES", "REPO", "content", "ends_well", "entry", "leftovers", "noted", "pinned", "python"]


def noted(hub, path, least):
    return hub.seen(path, least)
