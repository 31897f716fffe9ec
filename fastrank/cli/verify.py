"""`fastrank verify`: whether models are what the registry says, and return the expected results."""

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
from fastrank.store.http import UnreachableError
from fastrank.store.lookup import Lookup

OK, WRONG, UNCHECKED = "ok", "wrong", "unchecked"


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "verify",
        help="check models",
        description="Check the SHA-256 of every file of the models, and of int8 weights made from them; then run each "
        "and compare with its reference results. Models named here are downloaded if they are not cached. Damaged int8 "
        "weights are removed and made again at their next use. Exit status 1 if anything differs, or if a model named "
        "here could not be checked.",
    )
    parser.add_argument("model", nargs="*", help="models to check (default: those on this machine)")
    parser.add_argument("--all", action="store_true", help="check every model in the registry, one by one")
    parser.add_argument(
        "--remove", action="store_true", help="remove what was downloaded for a check before the next one"
    )
    parser.add_argument("--json", action="store_true", help="write JSON lines, one object per model")
    add_store_options(parser)
    parser.set_defaults(run=_run)


@dataclass
class _Report:
    """The outcome for one copy of a model, or why there is no copy to check."""

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
    by_files = 0
    for report in _reports(wanted, options, fetch=fetch):
        counts[report.outcome] += 1
        by_files += report.outcome == OK and not report.answers
        print(json.dumps(vars(report), ensure_ascii=False) if options.json else _as_text(report), flush=True)
    if not options.json:
        print(_summary(counts, by_files))
    return 1 if counts[WRONG] or counts[UNCHECKED] else 0


def _reports(specs: list[ModelSpec], options: argparse.Namespace, *, fetch: bool) -> Iterator[_Report]:
    """Reports, one model at a time: its files may be removed before the next one's are fetched."""
    unreachable = ""
    for spec in specs:
        copies = store.copies(spec, options.cache_dir)
        if not spec.variants:
            yield _check(spec, None, options.cache_dir)
        elif copies:
            yield from (_check(spec, copy, options.cache_dir) for copy in copies)
        elif fetch and unreachable and not _in_package_index(spec):
            yield _Report(spec.name, UNCHECKED, problems=[unreachable])
        elif fetch:
            try:
                copy = store.locate(spec, Lookup(cache_dir=options.cache_dir, local_files_only=options.offline))
            except ModelNotCachedError:
                yield _Report(spec.name, UNCHECKED, problems=["not on this machine, and downloading is off"])
                continue
            except DownloadError as error:
                if isinstance(error, UnreachableError):
                    unreachable = "not on this machine, and the hub cannot be reached"
                yield _Report(spec.name, UNCHECKED, problems=[str(error)])
                continue
            yield _check(spec, copy, options.cache_dir)
            if options.remove:
                _remove(copy, options.cache_dir)


def _check(spec: ModelSpec, copy: store.ModelFiles | None, cache_dir: str | None) -> _Report:
    """Hash the files of a copy, then compare its answers. None: a model without files."""
    report = _Report(spec.name, OK)
    if copy is not None:
        report.variant, report.folder = copy.variant, str(copy.folder)
        report.problems += store.problems(spec, copy)
        if report.problems and copy.origin == store.CACHE:
            report.notes.append(f"remove it with: fastrank cache --remove {spec.name}")
        report.notes += _unpinned(spec, copy)
        for made, problem in store.derived_problems(copy, cache_dir):
            store.discard(made)
            report.problems.append(f"{problem}. It was removed and is made again at its next use")
    if not report.problems:  # damaged files are not run
        _replay(spec, copy, report)
    report.outcome = WRONG if report.problems else OK
    return report


def _unpinned(spec: ModelSpec, copy: store.ModelFiles) -> list[str]:
    """What the files are compared with that the registry does not pin."""
    by_hub, by_form = store.unpinned(spec, copy)
    notes = []
    if by_hub:
        notes.append("files that are not pinned are compared with what the hub stated when they were fetched")
    if by_form:
        notes.append(f"nobody stated a hash of {', '.join(by_form)}: compared with what was fetched, and by form")
    return notes


def _replay(spec: ModelSpec, copy: store.ModelFiles | None, report: _Report) -> None:
    """Run the model on the inputs whose answers the registry knows, and compare."""
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
                    _compare(model, answer, report, task, exact=exact)
        except FastrankError as error:
            report.problems.append(f"{task}: {error}")


def _compare(model: Any, answer: Answer, report: _Report, task: str, *, exact: bool) -> None:
    if answer.method == "similarity":
        found = [_similarity(model, *answer.input)]
    elif isinstance(answer.input, tuple):
        found = list(model.rerank_pairs(answer.input))
    else:
        found = next(getattr(model, answer.method)(answer.input))
    largest = _largest_difference(found, answer)
    asked = {"task": task, "method": answer.method, "input": answer.input, "tolerance": answer.tolerance}
    report.answers.append({**asked, "largest_difference": largest if math.isfinite(largest) else None})
    if not (largest <= answer.tolerance if exact else math.isfinite(largest)):
        how = "in its shape or its indices" if math.isinf(largest) else f"by {largest:.2g}"
        report.problems.append(f"{task} {answer.method}({answer.input!r}) differs {how}")


def _similarity(model: Any, query: str, passage: str) -> float:
    """The dot product of a query's vector and a passage's; of sparse vectors, over the tokens that both have."""
    import numpy as np

    ours, theirs = next(model.query_embed(query)), next(model.passage_embed(passage))
    if hasattr(ours, "indices"):
        _, left, right = np.intersect1d(ours.indices, theirs.indices, return_indices=True)
        return float(ours.values[left] @ theirs.values[right])
    return float(ours @ theirs)


def _largest_difference(found: Any, answer: Answer) -> float:
    """Largest absolute difference from the known values; infinite if shape or indices differ."""
    import numpy as np

    expected = np.asarray(answer.values)
    if answer.indices is not None:
        first = np.argsort(found.indices, kind="stable")[: len(answer.indices)]
        if found.indices[first].tolist() != list(answer.indices):
            return math.inf
        values = np.asarray(found.values)[first]
    elif answer.rows is not None:
        if len(found) != answer.rows:
            return math.inf
        values = found[:, : len(expected) // answer.rows].ravel()
    else:
        values = np.asarray(found).ravel()[: len(expected)]
    return float(np.abs(values - expected).max(initial=0)) if values.shape == expected.shape else math.inf


def _as_text(report: _Report) -> str:
    """A report for people: the copy and its outcome, then problems, answers and notes."""
    copy = "  ".join(part for part in (report.model, report.variant, report.folder) if part)
    lines = [f"{copy}: {report.outcome}"]
    lines += [f"  {problem}" for problem in report.problems]
    for answer in report.answers:
        difference = answer["largest_difference"]
        shown = "not comparable" if difference is None else f"{difference:.1e}"
        asked = f"{answer['task']} {answer['method']}({answer['input']!r})"
        lines.append(f"  {asked}: largest difference {shown}, allowed {answer['tolerance']:.1e}")
    return "\n".join([*lines, *(f"  {note}" for note in report.notes)])


def _summary(counts: dict[str, int], by_files: int) -> str:
    """`3 ok (1 by the files only, without known answers), 0 wrong, 0 unchecked`."""
    note = f" ({by_files} by the files only, without known answers)" if by_files else ""
    return ", ".join(f"{count} {outcome}{note if outcome == OK else ''}" for outcome, count in counts.items())


def _remove(copy: store.ModelFiles, cache_dir: str | None) -> None:
    for model in store.contents(cache_dir):
        if model.folder == copy.folder:
            store.remove(model)


def _in_package_index(spec: ModelSpec) -> bool:
    return any(isinstance(source, WheelSource) for variant in spec.variants for source in variant.sources)
