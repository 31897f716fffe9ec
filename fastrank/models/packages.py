"""Models in installed packages, such as those that `fastrank pack` makes.

A package announces its model by an entry point `model name = package` of the group `fastrank.models`. Its folder holds
the model's files and, if `fastrank pack` made it, the manifest `fastrank.json`. Only metadata is read: no code of the
package is imported or run. A package whose metadata is not as it should be is left out, with one warning.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fastrank import log
from fastrank.errors import FastrankError, ModelLoadError, RegistryError
from fastrank.models.config import read_object
from fastrank.models.spec import COMMIT, NAME, PATH, PRECISIONS, SHA256, VARIANT, FileSpec

ENTRY_POINTS = "fastrank.models"
MANIFEST = "fastrank.json"  # the cache's folders have one as well

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_MAX_METADATA = 1_000_000  # bytes of an entry_points.txt that are read
_MAX_STRING = 200
_PRINTABLE = "[ -~]*"  # no control characters: these strings are shown in terminals
_STRINGS = {
    "model": NAME,
    "variant": VARIANT,
    "precision": "|".join(("unknown", *PRECISIONS)),
    "model_file": PATH,
    "license": _PRINTABLE,
    "source": _PRINTABLE,
}
_STRINGS_OR_NULL = {"like": NAME, "made_of": SHA256, "commit": COMMIT}

_warned: set[str] = set()


class Manifest(NamedTuple):
    """What `fastrank.json` says of a package's files.

    Attributes:
        variant: name of the variant, as in the registry.
        precision: precision of its weights, or "unknown".
        model_file: the ONNX graph or safetensors checkpoint among `files`.
        like: the registry's model with the same configuration, for a model that is not in the registry.
        made_of: SHA-256 of the registry's file from which the weights were quantized.
        license: SPDX expression, or "unknown".
        files: all files with size and SHA-256.
    """

    variant: str
    precision: str
    model_file: str
    like: str | None
    made_of: str | None
    license: str
    files: tuple[FileSpec, ...]


class Package(NamedTuple):
    """A model in an installed package; `manifest` is None if it has none."""

    model: str
    folder: Path
    manifest: Manifest | None


def packages(model: str | None = None) -> Iterator[Package]:
    """Installed packages with a model, or with this one, in the order of the import path."""
    for description, name, module in _announcements(_import_path()):
        if model is not None and name.casefold() != model.casefold():
            continue
        try:
            yield _package(description, name, module)
        except (FastrankError, OSError) as error:
            distribution = description.name.partition("-")[0]
            leave_out(distribution, str(error))


def leave_out(package: str, reason: str) -> None:
    """Warn, once per process and reason, that a package is not used."""
    message = f"installed package {package} is left out: {reason}"
    if message not in _warned:
        _warned.add(message)
        log.warning("%s", message)


def has_distribution(name: str) -> bool:
    """Whether a distribution of this name may be installed, in any version."""
    normal = re.sub(r"[-_.]+", "_", name).lower()
    return any(re.sub(r"[-.]+", "_", path.name).lower().startswith(f"{normal}_") for path in _descriptions())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder in the cache, its fields unchecked; empty if there is none that can be read."""
    try:
        return read_object(folder / MANIFEST)
    except ModelLoadError:
        return {}


# -- entry points -----------------------------------------------------------------------------------------------------


def _import_path() -> tuple[tuple[str, int], ...]:
    """The folders of the import path, and when something was installed into them or removed."""
    folders = []
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError):
            folders.append((folder, Path(folder or os.curdir).stat().st_mtime_ns))
    return tuple(folders)


@lru_cache(maxsize=1)
def _announcements(_import_path: tuple[tuple[str, int], ...]) -> list[tuple[Path, str, str]]:
    """(description folder, model name, package) of each entry point. Of a distribution installed twice: the first."""
    seen, announced = set(), list[tuple[Path, str, str]]()
    for description in _descriptions():
        if lines := _announcing(description):
            distribution = re.sub(r"[-_.]+", "_", description.name.partition("-")[0]).lower()
            if distribution not in seen:
                seen.add(distribution)
                announced += [(description, name, module) for name, module in _entry_points(lines)]
    return announced


def _descriptions() -> Iterator[Path]:
    """The folders with metadata (*.dist-info, *.egg-info) of all distributions on the import path.

    importlib.metadata lists them too, but takes 15 ms to import, 10 % of a cold start, and raises if one is malformed.
    """
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or os.curdir) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
        except OSError:  # not a folder; a model in a zip file could not be mapped into memory
            continue
        yield from (Path(folder, name) for name in names)


def _announcing(description: Path) -> list[str]:
    """The lines of a distribution's entry_points.txt if it has entry points of our group."""
    path = description / "entry_points.txt"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_METADATA:
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines() if ENTRY_POINTS in text else []


def _entry_points(lines: list[str]) -> Iterator[tuple[str, str]]:
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == ENTRY_POINTS and line and line[0] not in "#;":
            name, _, module = line.partition("=")
            yield name.strip(), module.strip()


# -- the package ------------------------------------------------------------------------------------------------------


def _package(description: Path, name: str, module: str) -> Package:
    if not re.fullmatch(NAME, name) or len(name) > _MAX_STRING:
        raise RegistryError(f"entry_points.txt: {name!a:.80} is not a model name like 'organisation/model'")
    if not _MODULE.fullmatch(module):
        raise RegistryError(f"entry_points.txt: {module!a:.80} is not the name of a package")
    folder = _folder(module, description.parent)
    if folder is None:
        raise RegistryError(f"entry_points.txt: there is no folder of the package {module}")
    try:
        (folder / MANIFEST).lstat()
    except FileNotFoundError:
        return Package(name, folder, None)
    return Package(name, folder, _manifest(folder, name))


def _folder(module: str, beside: Path) -> Path | None:
    """The folder of a package, found by its path: importlib would run the code of the packages around it."""
    parts = module.split(".")
    candidates = (Path(place, *parts).absolute() for place in (str(beside), *sys.path))
    # os.path.isdir: no error for a folder of the import path that this user may not read
    return next((folder for folder in candidates if os.path.isdir(folder)), None)  # noqa: PTH112


# -- the manifest -----------------------------------------------------------------------------------------------------


def _manifest(folder: Path, name: str) -> Manifest:
    """The manifest, checked field by field.

    Raises:
        FastrankError: it cannot be read, or a field is missing, unknown or not as it should be; the message names it.
    """
    _check_file(folder, MANIFEST)
    content = read_object(folder / MANIFEST)
    strings = {field: _string(content, field, pattern) for field, pattern in _STRINGS.items()}
    optional = {
        field: None if content.get(field, ...) is None else _string(content, field, pattern)
        for field, pattern in _STRINGS_OR_NULL.items()
    }
    files = _files(content)
    if unknown := sorted(content.keys() - {*_STRINGS, *_STRINGS_OR_NULL, "files"}):
        raise RegistryError(f"{MANIFEST}: unknown field {unknown[0]!a:.80}")
    if strings["model"].casefold() != name.casefold():
        raise RegistryError(f"{MANIFEST}: model is {strings['model']}, but the entry point says {name}")
    if strings["model_file"] not in {file.path for file in files}:
        raise RegistryError(f"{MANIFEST}: model_file is {strings['model_file']}, which is not among files")
    for file in files:
        _check_file(folder, file.path)
    return Manifest(
        strings["variant"],
        strings["precision"],
        strings["model_file"],
        optional["like"],
        optional["made_of"],
        strings["license"],
        files,
    )


def _string(content: Mapping[str, Any], field: str, pattern: str) -> str:
    value = content.get(field, ...)
    if value is ...:
        raise RegistryError(f"{MANIFEST}: {field} is missing")
    if not isinstance(value, str) or len(value) > _MAX_STRING or not re.fullmatch(pattern, value):
        raise RegistryError(f"{MANIFEST}: {field} must match {pattern}, got {value!a:.80}")
    return value


def _files(content: Mapping[str, Any]) -> tuple[FileSpec, ...]:
    stated = content.get("files")
    if not isinstance(stated, dict) or not stated:
        raise RegistryError(f"{MANIFEST}: files must be an object that states size and sha256 of each file")
    for path, facts in stated.items():
        if not re.fullmatch(PATH, path) or len(path) > _MAX_STRING:
            raise RegistryError(f"{MANIFEST}: files: {path!a:.80} is not a path inside the package")
        if not isinstance(facts, dict) or facts.keys() != {"size", "sha256"}:
            raise RegistryError(f"{MANIFEST}: files.{path} must have size and sha256, and nothing else")
        if type(facts["size"]) is not int or facts["size"] < 0:
            raise RegistryError(f"{MANIFEST}: files.{path}.size must be a number of bytes, got {facts['size']!a:.80}")
        _string({f"files.{path}.sha256": facts["sha256"]}, f"files.{path}.sha256", SHA256)
    return tuple(FileSpec(path, facts["size"], facts["sha256"]) for path, facts in stated.items())


def _check_file(folder: Path, path: str) -> None:
    """Raise unless the file, if it exists, is a regular file inside the folder, behind no link that leads out."""
    real = Path(os.path.realpath(folder / path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise RegistryError(f"{path} is a link that leads out of the package")
    if real.exists() and not real.is_file():
        raise RegistryError(f"{path} is not a regular file")
