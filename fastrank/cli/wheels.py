"""Model wheels: a model as a Python package, for machines without access to a model hub.

    fastrank_model_<organisation>_<model>/                  the model's files and fastrank.json, the manifest
    fastrank_model_<organisation>_<model>-<version>.dist-info/

Installing such a wheel is enough: `store` finds the package by its entry point and uses the files in place, without a
cache. hatchling (the extra `pack`) builds the wheel. Builds are reproducible: members are sorted, their times are fixed
(or SOURCE_DATE_EPOCH), their modes are normalized.
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
from fastrank.errors import DownloadError, IntegrityError, ModelLoadError, ModelNotFoundError, how_to_install
from fastrank.models import packages, registry
from fastrank.models.spec import CLASSES, NAME, PATH, FileSpec, HubSource, ModelSpec, Variant, is_checkpoint
from fastrank.store import choose, integrity, layout
from fastrank.store.lookup import Lookup

PRECISIONS = ("fp32", "fp16", "int8")

_LAYER = "python"  # AWS Lambda puts this folder of a layer on the import path
_DOCUMENTS = re.compile(r"(licen[cs]e|notice|copying|readme)(\.(md|txt))?", re.IGNORECASE)  # packed with the model


class Bundle(NamedTuple):
    """A model to pack: the files of one variant, in `folder`, each with size and SHA-256.

    Attributes:
        model: the registry's entry, or one made for a user's own model.
        variant: the variant with the files.
        folder: where the files are.
        like: for a user's own model, the built-in model with the same configuration; None: not stated.
        made_of: the registry's file from which the weights were quantized; None: they are the model's own.
    """

    model: ModelSpec
    variant: Variant
    folder: Path
    like: str | None = None
    made_of: FileSpec | None = None

    @property
    def source(self) -> HubSource | None:
        """The repository of the files; None: a user's own folder."""
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
) -> Bundle:
    """Collect the files of a model, fetching them if necessary, and check their hashes.

    Int8 weights that the registry does not list are quantized from its checkpoint, as `precision="int8"` does.

    Args:
        name: a built-in model, or with `path` any name like `organisation/model`.
        path: a folder with the files.
        like: for your own model, the built-in model with the same tasks, pooling, prefixes and so on. Then your model
            can be used by its name wherever the package is installed. Otherwise `add_custom_model` must state them.
        license: SPDX expression of your own model's licence.
        variant: which variant; None: the first of the precision that is on this machine, else that can be fetched.
        precision: one of `PRECISIONS`; None: that of the model's first variant.
        cache_dir: the cache folder; None: FASTRANK_CACHE or the user's.
        local_files_only: open no connection.
        scratch: a folder for quantized weights; it must exist until the bundle is packed.

    Raises:
        ModelNotFoundError: no such model, and no `path`.
        ValueError: no such variant or precision, an invalid name, or a model without files.
        IntegrityError: the files differ from what the registry states.
        ModelLoadError: `path` holds no model, or a link that leads out of it.
        DownloadError, ModelNotCachedError, OSError: as `store.locate`.
    """
    try:
        spec = registry.find(name)
    except ModelNotFoundError:
        if path is None:
            raise
        own = _own(name, path, like, license)
        return _quantized(own, scratch) if precision == "int8" else own
    checkpoint = next((each for each in spec.variants if each.model.endswith(".safetensors")), None)
    if precision == "int8" and checkpoint and all(_short(each) != "int8" for each in spec.variants):
        full = gather(name, path=path, variant=checkpoint.name, cache_dir=cache_dir, local_files_only=local_files_only)
        return _quantized(full, scratch)
    wanted = spec._replace(variants=_wanted(spec, variant, precision))
    if path is None:
        files = store.locate(wanted, Lookup(cache_dir=cache_dir, local_files_only=local_files_only))
        if problems := store.problems(spec, files):
            raise IntegrityError(f"{spec.name} in {files.folder} is damaged: {'; '.join(problems)}")
    else:
        files = _matching(wanted, path)
    return _hashed(spec, layout.resolved(files.folder, spec.variant(files.variant)[0]), files.folder)


def wheel(bundle: Bundle, output: Path, version: str | None = None) -> Path:
    """Build a wheel in `output` and return its path.

    Raises:
        ModuleNotFoundError: hatchling is not installed.
        ValueError: `version` is not a valid version (PEP 440).
    """
    try:
        from hatchling.builders.wheel import WheelBuilder
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name}, which builds wheels, is not installed. Run: {how_to_install('pack')}",
            name=error.name,
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        project = _project(bundle, Path(scratch), version)
        builder = WheelBuilder(scratch, config=project)
        return Path(next(iter(builder.build(directory=str(output.absolute()), versions=["standard"]))))


def layer_zip(bundle: Bundle, output: Path, version: str | None = None) -> Path:
    """Build a zip for an AWS Lambda layer: the installed wheel under `python/`."""
    with tempfile.TemporaryDirectory() as scratch:
        made = wheel(bundle, Path(scratch), version)
        target = output / f"{_stem(made)}.zip"
        part = target.with_name(f"{target.name}.part")
        output.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(made) as source, zipfile.ZipFile(part, "w") as layer:
                for member in source.infolist():
                    moved = zipfile.ZipInfo(f"{_LAYER}/{member.filename}", member.date_time)
                    moved.external_attr, moved.file_size = member.external_attr, member.file_size
                    moved.compress_type = member.compress_type
                    with source.open(member) as stream, layer.open(moved, "w") as copy:
                        shutil.copyfileobj(stream, copy, 1 << 20)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def layer_dir(bundle: Bundle, output: Path, version: str | None = None) -> Path:
    """Build a folder for an image or an import path: the installed wheel under `python/`."""
    with tempfile.TemporaryDirectory() as scratch:
        made = wheel(bundle, Path(scratch), version)
        target = output / _stem(made)
        if target.exists():
            raise FileExistsError(f"{target} exists already; remove it first")
        output.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(made) as source, tempfile.TemporaryDirectory(dir=output) as part:
            source.extractall(Path(part, target.name, _LAYER))
            Path(part, target.name).rename(target)
    return target


FORMATS = MappingProxyType({"wheel": wheel, "zip": layer_zip, "dir": layer_dir})


def distribution(bundle: Bundle) -> str:
    """The name of the package: `fastrank-model-<organisation>-<model>`, then the variant unless it is full precision.

    Otherwise a model's int8 files would look like a newer version of its full-precision files.
    """
    variant = "" if bundle.variant.precision in ("fp32", "unknown") else f"-{bundle.variant.name}"
    return re.sub(r"[^a-z0-9]+", "-", f"fastrank-model-{bundle.model.name}{variant}".lower()).strip("-")


def manifest(bundle: Bundle) -> dict[str, Any]:
    """The content of `fastrank.json`, as `models.packages` reads it."""
    source = bundle.source
    return {
        "model": bundle.model.name,
        "variant": bundle.variant.name,
        "precision": bundle.variant.precision,
        "model_file": bundle.variant.model,
        "like": bundle.like,
        "made_of": bundle.made_of.sha256 if bundle.made_of else None,
        "license": bundle.model.license,
        "source": f"hub repository {source.hub}" if source else "a folder",
        "commit": source.revision if source else None,
        "files": {file.path: {"size": file.size, "sha256": file.sha256} for file in bundle.variant.files},
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
    """The variant whose files are in the folder, with the registry's hashes."""
    candidates = [
        store.ModelFiles(path, each.model, each.name, "given folder")
        for each in spec.variants
        if (path / each.model).is_file()
    ]
    problems = [store.problems(spec, files) for files in candidates]
    for files, found in zip(candidates, problems, strict=True):
        if not found:
            return files
    reason = "; ".join(problems[0]) if candidates else f"no {' or '.join(each.model for each in spec.variants)}"
    raise IntegrityError(
        f"{path} does not hold the files of {spec.name}: {reason}. "
        "To pack a model of your own, give it a name that is not in the registry."
    )


def _own(name: str, path: Path, like: str | None, license: str | None) -> Bundle:  # noqa: A002
    """A user's own model: its graph or checkpoint with the files it needs."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"model {name!r} is not valid: it must be like 'organisation/model'")
    if like is None:
        unknown = Variant("onnx", "unknown", "onnx/model.onnx", (), ())
        spec = ModelSpec(name, "A user's own model", "unknown", (), MappingProxyType({}), (unknown,))
    else:
        spec = (base := registry.find(like))._replace(name=name, description=f"A model like {base.name}")
        like = base.name
    spec = spec._replace(license=license or spec.license)
    model = store.locate(spec, Lookup(path=path)).model
    _refuse_links_out(path, [model])
    form = "onnx" if model.endswith(".onnx") else "safetensors"
    variant = _own_variant(Variant(form, "unknown", model, (), ()), path)
    return _hashed(spec, variant, path)._replace(like=like)


def _quantized(full: Bundle, scratch: Path | None) -> Bundle:
    """The model with int8 weights: one weight file per task, as each needs its own."""
    import fastrank

    if scratch is None:
        raise ValueError("int8 weights must be quantized first: pass scratch=<a folder for them>")
    if not full.model.tasks:
        raise ValueError("A model's task decides which weights become int8: state a built-in model that it is like")
    for task in full.model.tasks:
        model = getattr(fastrank, CLASSES[task])
        with model(full.like or full.model.name, scratch, specific_model_path=full.folder, precision="int8"):
            pass  # loading it quantizes the weights
    made = [_signed(path) for path in sorted(scratch.glob("derived/*/*int8-*.safetensors"))]
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
    return _hashed(full.model, variant, target)._replace(like=full.like, made_of=origin)


def _signed(made: Path) -> Path:
    """Int8 weights in the form that is fastest on most CPUs; those that have another change it when they load it."""
    from fastrank.engine import quantize  # which imports numpy

    if quantize.form_of(made.name) == quantize.INT8:
        return made
    target = made.with_name(made.name.removeprefix("u"))
    quantize.change_sign(made, target)
    return target


def _own_variant(variant: Variant, folder: Path) -> Variant:
    """The variant with its external data or shards, modules, configuration and vocabularies, but no other weights."""
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


def _hashed(spec: ModelSpec, variant: Variant, folder: Path) -> Bundle:
    """A bundle with size and hash of every file, including licence files and README.

    Raises:
        ModelLoadError: a file is a link that leads out of the folder.
    """
    paths = [file.path for file in variant.files if (folder / file.path).is_file()]
    documents = [path.name for path in folder.iterdir() if path.is_file() and _DOCUMENTS.fullmatch(path.name)]
    _refuse_links_out(folder, [*paths, *documents])
    files = tuple(
        FileSpec(path, (folder / path).stat().st_size, integrity.sha256(folder / path))
        for path in sorted({*paths, *documents} - {packages.MANIFEST})
    )
    return Bundle(spec, variant._replace(files=files), folder.absolute())


def _refuse_links_out(folder: Path, paths: Iterable[str]) -> None:
    """Raise if a path leads out of the folder by a link: it may be any file of this machine."""
    real = folder.resolve()
    for path in paths:
        if not (folder / path).resolve().is_relative_to(real):
            raise ModelLoadError(
                f"{folder} cannot be packed: {path} is a link that leads out of the folder. "
                "Copy the folder with the files behind its links (cp -rL) and pack the copy."
            )


# -- the wheel --------------------------------------------------------------------------------------------------------


def _project(bundle: Bundle, scratch: Path, version: str | None) -> dict[str, Any]:
    """The project as hatchling's configuration (a pyproject.toml); small files are written to `scratch`."""
    name = distribution(bundle)
    package = name.replace("-", "_")
    notes = json.dumps(manifest(bundle), indent=1)
    written = {packages.MANIFEST: notes, "__init__.py": f'"""The files of {bundle.model.name}, for fastrank."""\n'}
    included = {str(bundle.folder / file.path): f"{package}/{file.path}" for file in bundle.variant.files}
    for file, content in written.items():
        (scratch / file).write_text(content, encoding="utf-8", newline="\n")
        included[str(scratch / file)] = f"{package}/{file}"
    documents = [file.path for file in bundle.variant.files if _DOCUMENTS.fullmatch(file.path)]
    for document in documents:
        shutil.copyfile(bundle.folder / document, scratch / document)
    source = bundle.source
    page = f"https://huggingface.co/{source.hub}/tree/{source.revision or 'main'}" if source else None
    project = {
        "name": name,
        "version": version or _version(bundle),
        "description": f"The model {bundle.model.name} ({bundle.variant.name}) for fastrank",
        "readme": {"text": _readme(bundle, page), "content-type": "text/markdown"},
        "requires-python": ">=3.11",
        "license-files": documents,
        "classifiers": ["Private :: Do Not Upload"],  # the public index refuses it: models have owners
        "entry-points": {packages.ENTRY_POINTS: {bundle.model.name: package}},
    }
    if bundle.model.license not in ("", "unknown"):
        project["license"] = _spdx(bundle.model.license)
    if page:
        project["urls"] = {"Source": page}
    target = {"force-include": included, "core-metadata-version": "2.4"}
    return {"project": project, "tool": {"hatch": {"build": {"targets": {"wheel": target}}}}}


def _version(bundle: Bundle) -> str:
    """A version derived from the hashes. Hashes have no order, so it is 0.x, older than any version a user gives."""
    files = json.dumps([[file.path, file.sha256] for file in bundle.variant.files])
    return f"0.{int(hashlib.sha256(files.encode()).hexdigest()[:8], 16)}"


def _readme(bundle: Bundle, page: str | None) -> str:
    files = "\n".join(f"| {file.path} | {file.size} | {file.sha256} |" for file in bundle.variant.files)
    return (
        f"# {bundle.model.name}\n\n{bundle.model.description}\n\n"
        f"Variant: {bundle.variant.name}. Licence: {bundle.model.license}. Source: {page or 'a folder'}.\n\n"
        "Packed by `fastrank pack`. Where it is installed, fastrank uses it; nothing needs to be configured.\n\n"
        f"| file | bytes | SHA-256 |\n|---|---|---|\n{files}\n"
    )


def _spdx(license: str) -> str:  # noqa: A002
    """The licence as an SPDX expression; one that SPDX does not list becomes a LicenseRef."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(license)
    except InvalidLicenseExpression:
        return f"LicenseRef-{re.sub(r'[^A-Za-z0-9.-]+', '-', license)}"


def _stem(wheel: Path) -> str:
    """`name-version` of a wheel's file name."""
    return "-".join(wheel.name.split("-")[:2])
