"""`fastrank verify`: whether models are what the registry says, and return what they are known to return."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastrank import store
from fastrank.cli.options import add_store_options
from fastrank.errors import DownloadError, FastrankError, ModelNotCachedError
from fastrank.models import registry
from fastrank.models.spec import CLASSES, Answer, ModelSpec, WheelSource
from fastrank.store.hub import UnreachableError

OK, WRONG, UNCHECKED = "ok", "wrong", "unchecked"


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "verify",
        help="check models",
        description="Check the SHA-256 of every file of the models, then run each and compare with its known answers. "
        "Models that are named and not on this machine are fetched. Exit status 1 if anything differs, or if a model "
        "that was named could not be checked.",
    )
    parser.add_argument("model", nargs="*", help="models to check; default: those that are on this machine")
    parser.add_argument("--all", action="store_true", help="check every model of the registry, one after the other")
    parser.add_argument("--remove", action="store_true", help="remove what was fetched for this, before the next one")
    parser.add_argument("--json", action="store_true", help="one JSON object a model")
    add_store_options(parser)
    parser.set_defaults(run=_run)


@dataclass
class _Report:
    """What was found out about one copy of a model, or why there is none to look at."""

    model: str
    outcome: str
    variant: str | None = None
    folder: str | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)


def _run(options: argparse.Namespace) -> int:
    if options.all and options.model:
        raise ValueError("name models or say --all, not both")
    wanted = [registry.find(name) for name in options.model] or registry.entries()
    fetch = bool(options.all or options.model)
    counts = dict.fromkeys((OK, WRONG, UNCHECKED), 0)
    for report in _reports(wanted, options, fetch=fetch):
        counts[report.outcome] += 1
        print(json.dumps(vars(report), ensure_ascii=False) if options.json else _told(report), flush=True)
    if not options.json:
        print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts[WRONG] or counts[UNCHECKED] else 0


def _reports(specs: list[ModelSpec], options: argparse.Namespace, *, fetch: bool) -> Iterator[_Report]:
    """Reports as they come: a model a time, whose files may go before the next one's are fetched."""
    unreachable = ""
    for spec in specs:
        copies = store.copies(spec, options.cache_dir)
        if not spec.variants:
            yield _checked(spec, None)
        elif copies:
            yield from (_checked(spec, copy) for copy in copies)
        elif fetch and unreachable and not _in_package_index(spec):
            yield _Report(spec.name, UNCHECKED, problems=[unreachable])
        elif fetch:
            try:
                copy = store.locate(spec, cache_dir=options.cache_dir, local_files_only=options.offline)
            except ModelNotCachedError:
                yield _Report(spec.name, UNCHECKED, problems=["not on this machine, and downloading is off"])
                continue
            except DownloadError as error:
                if isinstance(error, UnreachableError):
                    unreachable = "not on this machine, and the hub cannot be reached"
                yield _Report(spec.name, UNCHECKED, problems=[str(error)])
                continue
            yield _checked(spec, copy)
            if options.remove:
                _remove(copy, options.cache_dir)


def _checked(spec: ModelSpec, copy: store.ModelFiles | None) -> _Report:
    report = _Report(spec.name, OK)
    if copy is not None:
        report.variant, report.folder = copy.variant, str(copy.folder)
        report.problems += store.faults(spec, copy)
        if report.problems and copy.origin == store.CACHE:
            report.notes.append(f"remove it with: fastrank cache --remove {spec.name}")
        (variant,) = spec.variant(copy.variant)
        if not variant.pinned:
            report.notes.append("files that are not pinned are compared with what was downloaded")
    if not report.problems:  # damaged files are not run
        _replay(spec, copy, report)
    report.outcome = WRONG if report.problems else OK
    return report


def _replay(spec: ModelSpec, copy: store.ModelFiles | None, report: _Report) -> None:
    """Ask the model what it is known to answer."""
    import fastrank

    # The answers are those of full precision: int8 may differ, but not in shape.
    exact = copy is None or not spec.variant(copy.variant)[0].precision.startswith("int8")
    where = {} if copy is None else {"specific_model_path": copy.folder, "variant": copy.variant}
    for task, settings in spec.tasks.items():
        if not settings.answers:
            report.notes.append(f"no known answers for {task}")
            continue
        try:
            with getattr(fastrank, CLASSES[task])(spec.name, **where) as model:
                for answer in settings.answers:
                    _compare(model, answer, report, exact=exact)
        except FastrankError as error:
            report.problems.append(f"{task}: {error}")


def _compare(model: Any, answer: Answer, report: _Report, *, exact: bool) -> None:
    if isinstance(answer.input, tuple):
        found = list(model.rerank_pairs(answer.input))
    else:
        found = next(getattr(model, answer.method)(answer.input))
    largest = _largest_difference(found, answer)
    asked = {"method": answer.method, "input": answer.input, "tolerance": answer.tolerance}
    report.answers.append({**asked, "largest_difference": largest if math.isfinite(largest) else None})
    if not (largest <= answer.tolerance if exact else math.isfinite(largest)):
        how = "in its shape or its indices" if math.isinf(largest) else f"by {largest:.2g}"
        report.problems.append(f"{answer.method}({answer.input!r}) differs {how}")


def _largest_difference(found: Any, answer: Answer) -> float:
    """Between what a model returns and what is known of it; infinite if they differ in shape or in indices."""
    import numpy as np

    known = np.asarray(answer.values)
    if answer.indices is not None:
        first = np.argsort(found.indices, kind="stable")[: len(answer.indices)]
        if found.indices[first].tolist() != list(answer.indices):
            return math.inf
        values = np.asarray(found.values)[first]
    elif answer.rows is not None:
        if len(found) != answer.rows:
            return math.inf
        values = found[:, : len(known) // answer.rows].ravel()
    else:
        values = np.asarray(found).ravel()[: len(known)]
    return float(np.abs(values - known).max(initial=0)) if values.shape == known.shape else math.inf


def _told(report: _Report) -> str:
    """A report for people: what it is and how it stands, then what was asked."""
    place = "  ".join(part for part in (report.model, report.variant, report.folder) if part)
    lines = [f"{place}: {report.outcome}"]
    lines += [f"  {problem}" for problem in report.problems]
    for answer in report.answers:
        difference = answer["largest_difference"]
        told = "not comparable" if difference is None else f"{difference:.1e}"
        asked = f"{answer['method']}({answer['input']!r})"
        lines.append(f"  {asked}: largest difference {told}, allowed {answer['tolerance']:.1e}")
    return "\n".join([*lines, *(f"  {note}" for note in report.notes)])


def _remove(copy: store.ModelFiles, cache_dir: str | None) -> None:
    for entry in store.contents(cache_dir):
        if entry.folder == copy.folder:
            store.remove(entry)


def _in_package_index(spec: ModelSpec) -> bool:
    return any(isinstance(source, WheelSource) for variant in spec.variants for source in variant.sources)
