"""Model wheels: a model as a Python package, for machines that reach no model hub.

    fastrank_model_<organisation>_<model>/                  the model's files and fastrank.json, the manifest
    fastrank_model_<organisation>_<model>-<version>.dist-info/

`pip install` of such a wheel is all it takes: `store` finds the package by its entry point and uses the files where
they lie, with no cache. hatchling (the extra `pack`) builds the wheel, and the same files give the same bytes each
time: members are sorted, their times are SOURCE_DATE_EPOCH's or fixed, their modes are normalised.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fastrank import store
from fastrank.errors import DownloadError, IntegrityError, ModelLoadError, ModelNotFoundError
from fastrank.models import packages, registry
from fastrank.models.spec import CLASSES, NAME, PATH, FileSpec, HubSource, ModelSpec, Variant, is_checkpoint
from fastrank.store import choose, integrity, layout

PRECISIONS = ("fp32", "fp16", "int8")

_LAYER = "python"  # AWS Lambda puts this folder of a layer on the import path
_PAPERS = re.compile(r"(licen[cs]e|notice|copying|readme)(\.(md|txt))?", re.IGNORECASE)


class Parcel(NamedTuple):
    """What is packed: the files of one variant, which lie in `folder` and all have size and SHA-256.

    `like` is the model of the registry with the same configuration, if it is said of a model of the user's own.
    """

    model: ModelSpec
    variant: Variant
    folder: Path
    like: str | None = None
    made_of: FileSpec | None = None  # the registry's file of which the weights were made

    @property
    def source(self) -> HubSource | None:
        """The repository whose files these are; None: a folder of the user's own."""
        return next((source for source in self.variant.sources if isinstance(source, HubSource)), None)


def gather(
    name: str,
    *,
    path: Path | None = None,
    like: str | None = None,
    license: str | None = None,  # noqa: A002 - what it is called everywhere
    variant: str | None = None,
    precision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    scratch: Path | None = None,
) -> Parcel:
    """The files of a model, fetched if need be, and read in full to be checked.

    Int8 weights that the registry has not are made of a checkpoint that it has, as `precision="int8"` makes them.

    Args:
        name: a model of the registry, or with `path` any name `organisation/model`.
        path: a folder to take the files from.
        like: for a model that is not in the registry, one there of the same tasks, pooling, prefixes ...: then it can
            be used by its name wherever the package is installed. Without, `add_custom_model` must say all that.
        license: of a model that is not in the registry, as an SPDX expression.
        variant: which variant; None: the first of the precision that is on this machine, else that can be had.
        precision: one of `PRECISIONS`; None: that of the model's first variant.
        cache_dir: the cache folder; None: FASTRANK_CACHE or the user's.
        local_files_only: open no connection.
        scratch: a folder for files that must be made; it must be there until all is packed.

    Raises:
        ModelNotFoundError: no such model, and no `path`.
        ValueError: no such variant or precision; a name that is none; a model without files.
        IntegrityError: the files are not what the registry states.
        ModelLoadError: `path` holds no model.
        DownloadError, ModelNotCachedError, OSError: as `store.locate`.
    """
    try:
        spec = registry.find(name)
    except ModelNotFoundError:
        if path is None:
            raise
        own = _own(name, path, like, license)
        return _in_int8(own, scratch) if precision == "int8" else own
    checkpoint = next((each for each in spec.variants if each.model.endswith(".safetensors")), None)
    if precision == "int8" and checkpoint and all(_short(each) != "int8" for each in spec.variants):
        full = gather(name, path=path, variant=checkpoint.name, cache_dir=cache_dir, local_files_only=local_files_only)
        return _in_int8(full, scratch)
    wanted = spec._replace(variants=_wanted(spec, variant, precision))
    if path is None:
        files = store.locate(wanted, cache_dir=cache_dir, local_files_only=local_files_only)
        if problems := store.problems(spec, files):
            raise IntegrityError(f"{spec.name} in {files.folder} is damaged: {'; '.join(problems)}")
    else:
        files = _matching(wanted, path)
    return _sealed(spec, layout.resolved(files.folder, spec.variant(files.variant)[0]), files.folder)


def wheel(parcel: Parcel, output: Path, version: str | None = None) -> Path:
    """Build the wheel in `output`; its path.

    Raises:
        ModuleNotFoundError: hatchling is not installed.
        ValueError: `version` is none (PEP 440).
    """
    try:
        from hatchling.builders.wheel import WheelBuilder
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which builds wheels. Run: pip install 'fastrank-onnx[pack]'",
            name=error.name,
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        project = _project(parcel, Path(scratch), version)
        builder = WheelBuilder(scratch, config=project)
        return Path(next(iter(builder.build(directory=str(output.absolute()), versions=["standard"]))))


def layer_zip(parcel: Parcel, output: Path, version: str | None = None) -> Path:
    """Build a zip for an AWS Lambda layer: the installed wheel under `python/`."""
    with tempfile.TemporaryDirectory() as scratch:
        made = wheel(parcel, Path(scratch), version)
        target = output / f"{_stem(made)}.zip"
        part = target.with_name(f"{target.name}.part")
        output.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(made) as source, zipfile.ZipFile(part, "w") as layer:
            for member in source.infolist():
                moved = zipfile.ZipInfo(f"{_LAYER}/{member.filename}", member.date_time)
                moved.external_attr, moved.file_size = member.external_attr, member.file_size
                moved.compress_type = member.compress_type
                with source.open(member) as stream, layer.open(moved, "w") as copy:
                    shutil.copyfileobj(stream, copy, 1 << 20)
        part.replace(target)
    return target


def layer_dir(parcel: Parcel, output: Path, version: str | None = None) -> Path:
    """Build a folder for an image or an import path: the installed wheel under `python/`."""
    with tempfile.TemporaryDirectory() as scratch:
        made = wheel(parcel, Path(scratch), version)
        target = output / _stem(made)
        if target.exists():
            raise FileExistsError(f"{target} is there already; remove it first")
        output.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(made) as source, tempfile.TemporaryDirectory(dir=output) as part:
            source.extractall(Path(part, target.name, _LAYER))
            Path(part, target.name).rename(target)
    return target


FORMATS = MappingProxyType({"wheel": wheel, "zip": layer_zip, "dir": layer_dir})


def distribution(parcel: Parcel) -> str:
    """The name of the package: `fastrank-model-<organisation>-<model>`, and the variant unless it is of full precision.

    So a model's int8 files do not pass for a newer version of its full ones.
    """
    variant = "" if parcel.variant.precision in ("fp32", "unknown") else f"-{parcel.variant.name}"
    return re.sub(r"[^a-z0-9]+", "-", f"fastrank-model-{parcel.model.name}{variant}".lower()).strip("-")


def manifest(parcel: Parcel) -> dict[str, Any]:
    """What `fastrank.json` says."""
    source = parcel.source
    return {
        "model": parcel.model.name,
        "variant": parcel.variant.name,
        "precision": parcel.variant.precision,
        "model_file": parcel.variant.model,
        "like": parcel.like,
        "made_of": parcel.made_of.sha256 if parcel.made_of else None,
        "license": parcel.model.license,
        "source": f"hub repository {source.hub}" if source else "a folder",
        "commit": source.revision if source else None,
        "files": {file.path: {"size": file.size, "sha256": file.sha256} for file in parcel.variant.files},
    }


# -- what goes in -----------------------------------------------------------------------------------------------------


def _wanted(spec: ModelSpec, variant: str | None, precision: str | None) -> tuple[Variant, ...]:
    if not spec.variants:
        raise ValueError(f"{spec.name} needs no files: there is nothing to pack")
    if variant is None and precision is None:
        precision = _short(spec.variants[0])
    found = tuple(each for each in spec.variant(variant) if precision in (None, _short(each)))
    if not found:
        known = ", ".join(f"{each.name} ({_short(each)})" for each in spec.variants)
        raise ValueError(f"{spec.name} has no variant of precision {precision}. It has: {known}")
    return found


def _short(variant: Variant) -> str:
    """`int8` of `int8-dynamic`."""
    return variant.precision.partition("-")[0]


def _matching(spec: ModelSpec, path: Path) -> store.ModelFiles:
    """The variant whose files are in the folder."""
    here = [
        store.ModelFiles(path, each.model, each.name, "given folder")
        for each in spec.variants
        if (path / each.model).is_file()
    ]
    problems = [store.problems(spec, files) for files in here]
    for files, found in zip(here, problems, strict=True):
        if not found:
            return files
    reason = "; ".join(problems[0]) if here else f"no {' or '.join(each.model for each in spec.variants)}"
    raise IntegrityError(
        f"{path} does not hold the files of {spec.name}: {reason}. "
        "To pack a model of your own, give it a name that is not in the registry."
    )


def _own(name: str, path: Path, like: str | None, license: str | None) -> Parcel:  # noqa: A002
    """A model that is in no registry: its graph or checkpoint, with what belongs to it."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"model {name!r} is not valid: it must be like 'organisation/model'")
    if like is None:
        unknown = Variant("onnx", "unknown", "onnx/model.onnx", (), ())
        spec = ModelSpec(name, "A model of its user's own", "unknown", (), MappingProxyType({}), (unknown,))
    else:
        spec = (base := registry.find(like))._replace(name=name, description=f"A model like {base.name}")
        like = base.name
    spec = spec._replace(license=license or spec.license)
    model = store.locate(spec, given=path).model
    _refuse_links_out(path, [model])
    form = "onnx" if model.endswith(".onnx") else "safetensors"
    variant = _belonging(Variant(form, "unknown", model, (), ()), path)
    return _sealed(spec, variant, path)._replace(like=like)


def _in_int8(full: Parcel, scratch: Path | None) -> Parcel:
    """The checkpoint with its weights in int8: one file for each way in which it is used."""
    import fastrank

    if scratch is None:
        raise ValueError("int8 weights must be made: pass scratch=<a folder for them>")
    if not full.model.tasks:
        raise ValueError("How a model is used decides which weights it needs in int8: say which model it is like")
    for task in full.model.tasks:
        model = getattr(fastrank, CLASSES[task])
        with model(full.like or full.model.name, scratch, specific_model_path=full.folder, precision="int8"):
            pass  # made at the load
    made = sorted(scratch.glob("derived/*/int8-*.safetensors"))
    target = scratch / "int8"
    for file in full.variant.files:
        if "/" in file.path or not is_checkpoint(file.path):
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(full.folder / file.path, target / file.path)
    for path in made:
        path.rename(target / path.name)
    files = tuple(FileSpec(path.relative_to(target).as_posix(), None, None) for path in target.rglob("*"))
    origin = next(file for file in full.variant.files if file.path == full.variant.model)
    variant = Variant("int8", "int8-weights", made[0].name, files, full.variant.sources)
    return _sealed(full.model, variant, target)._replace(like=full.like, made_of=origin)


def _belonging(variant: Variant, folder: Path) -> Variant:
    """With its external data or shards, modules, configuration, vocabularies. Other graphs and weights stay behind."""
    listed = [
        FileSpec(name, None, None)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and re.fullmatch(PATH, name := path.relative_to(folder).as_posix())
    ]
    small = [file for file in listed if re.fullmatch(r"[^/]+\.(json|txt)", file.path)]
    needed = (FileSpec("tokenizer.json", None, None), *small)
    try:
        return choose.choose(variant._replace(files=needed), listed)
    except DownloadError as error:
        raise ModelLoadError(f"{folder} cannot be packed: {error}") from None


def _sealed(spec: ModelSpec, variant: Variant, folder: Path) -> Parcel:
    """With the size and hash of every file, and with the licence and README that lie beside them.

    Raises:
        ModelLoadError: a file is behind a link that leads out of the folder.
    """
    paths = [file.path for file in variant.files if (folder / file.path).is_file()]
    papers = [path.name for path in folder.iterdir() if path.is_file() and _PAPERS.fullmatch(path.name)]
    _refuse_links_out(folder, [*paths, *papers])
    files = tuple(
        FileSpec(path, (folder / path).stat().st_size, integrity.sha256(folder / path))
        for path in sorted({*paths, *papers} - {packages.MANIFEST})
    )
    return Parcel(spec, variant._replace(files=files), folder.absolute())


def _refuse_links_out(folder: Path, paths: Iterable[str]) -> None:
    """A link may lead to any file of this machine, which nobody means to hand on."""
    real = folder.resolve()
    for path in paths:
        if not (folder / path).resolve().is_relative_to(real):
            raise ModelLoadError(
                f"{folder} cannot be packed: {path} is a link that leads out of the folder. "
                "Copy the folder with the files behind its links (cp -rL) and pack the copy."
            )


# -- the wheel --------------------------------------------------------------------------------------------------------


def _project(parcel: Parcel, scratch: Path, version: str | None) -> dict[str, Any]:
    """The wheel as hatchling takes it (a pyproject.toml); small files are written to `scratch`."""
    name = distribution(parcel)
    package = name.replace("-", "_")
    notes = json.dumps(manifest(parcel), indent=1)
    written = {packages.MANIFEST: notes, "__init__.py": f'"""The files of {parcel.model.name}, for fastrank."""\n'}
    included = {str(parcel.folder / file.path): f"{package}/{file.path}" for file in parcel.variant.files}
    for file, content in written.items():
        (scratch / file).write_text(content, encoding="utf-8", newline="\n")
        included[str(scratch / file)] = f"{package}/{file}"
    papers = [file.path for file in parcel.variant.files if _PAPERS.fullmatch(file.path)]
    for paper in papers:
        shutil.copyfile(parcel.folder / paper, scratch / paper)
    source = parcel.source
    page = f"https://huggingface.co/{source.hub}/tree/{source.revision or 'main'}" if source else None
    project = {
        "name": name,
        "version": version or _version(parcel),
        "description": f"The model {parcel.model.name} ({parcel.variant.name}) for fastrank",
        "readme": {"text": _readme(parcel, page), "content-type": "text/markdown"},
        "requires-python": ">=3.11",
        "license-files": papers,
        "classifiers": ["Private :: Do Not Upload"],  # the public index refuses it: models have owners
        "entry-points": {packages.ENTRY_POINTS: {parcel.model.name: package}},
    }
    if parcel.model.license not in ("", "unknown"):
        project["license"] = _spdx(parcel.model.license)
    if page:
        project["urls"] = {"Source": page}
    target = {"force-include": included, "core-metadata-version": "2.4"}
    return {"project": project, "tool": {"hatch": {"build": {"targets": {"wheel": target}}}}}


def _version(parcel: Parcel) -> str:
    """One for each set of files, older than any that a user may give: hashes have no order."""
    files = json.dumps([[file.path, file.sha256] for file in parcel.variant.files])
    return f"0.{int(hashlib.sha256(files.encode()).hexdigest()[:8], 16)}"


def _readme(parcel: Parcel, page: str | None) -> str:
    files = "\n".join(f"| {file.path} | {file.size} | {file.sha256} |" for file in parcel.variant.files)
    return (
        f"# {parcel.model.name}\n\n{parcel.model.description}\n\n"
        f"Variant: {parcel.variant.name}. Licence: {parcel.model.license}. Source: {page or 'a folder'}.\n\n"
        "Packed by `fastrank pack`. Where it is installed, fastrank uses it; nothing needs to be configured.\n\n"
        f"| file | bytes | SHA-256 |\n|---|---|---|\n{files}\n"
    )


def _spdx(license: str) -> str:  # noqa: A002
    """A licence as packages state it; one that SPDX does not list becomes a reference."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(license)
    except InvalidLicenseExpression:
        return f"LicenseRef-{re.sub(r'[^A-Za-z0-9.-]+', '-', license)}"


def _stem(wheel: Path) -> str:
    """`name-version` of a wheel's file name."""
    return "-".join(wheel.name.split("-")[:2])
