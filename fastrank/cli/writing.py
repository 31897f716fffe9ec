"""Writes output files: a regular file is replaced when the new one is complete, anything else is written into."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")


def check(path: Path, source: os.stat_result | None) -> None:
    """Refuse an output that cannot be written, or that is the input, before any work is done.

    Args:
        path: the output.
        source: `os.stat` of the input, if it has one.

    Raises:
        ValueError: the output is a folder, its folder is missing, or it is the input.
        PermissionError: the output exists and may not be written.
        OSError: the output is a loop of links.
    """
    try:
        existing = path.stat()
    except FileNotFoundError:
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise ValueError(f"--output {path}: there is no folder {folder}. Create it first") from None
        return
    if stat.S_ISDIR(existing.st_mode):
        raise ValueError(f"--output {path}: is a folder")
    if source is not None and stat.S_ISREG(existing.st_mode) and os.path.samestat(existing, source):
        raise ValueError(f"--output {path}: is the input, which would be lost. Name another file")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"--output {path}: may not be written")


def is_stream(path: Path) -> bool:
    """Whether it is written into and not replaced: a pipe, a device, an open descriptor."""
    return bool(_DESCRIPTOR.fullmatch(str(path))) or (path.exists() and not path.is_file())


@contextlib.contextmanager
def output(path: Path, *, seek: bool) -> Iterator[BinaryIO]:
    """Open a file whose content becomes that of `path` when the block ends without an error.

    A regular file is replaced in one step and keeps its permissions; if the block fails, it is as it was and nothing is
    left behind. A link is followed and stays. Pipes, devices and open descriptors such as /dev/stdout are written into.

    Args:
        path: the output, which `check` has accepted.
        seek: whether the block moves about in the file. A pipe is then written when the block ends.
    """
    if is_stream(path):
        with _named(path), open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as target:  # noqa: PTH123
            if not seek:
                yield target
                target.flush()
                return
            with tempfile.TemporaryFile() as file:
                yield file
                file.seek(0)
                shutil.copyfileobj(file, target)
    else:
        with _replacement(Path(os.path.realpath(path)), path) as file:
            yield file


@contextlib.contextmanager
def _replacement(target: Path, path: Path) -> Iterator[BinaryIO]:
    old = target.stat() if target.exists() else None
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        # Until it is complete, nobody may read it who may not read the old one.
        with _named(path), open(os.open(part, flags, 0o600 if old else 0o666), "w+b") as file:  # noqa: PTH123
            yield file
            file.flush()
        if old:
            _keep_access(part, old)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _keep_access(part: Path, old: os.stat_result) -> None:
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):  # only root may give files away
            os.chown(part, old.st_uid, old.st_gid)
    part.chmod(stat.S_IMODE(old.st_mode))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the file's name to errors of writing, such as a full disk, which have none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None or isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
