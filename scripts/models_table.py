"""Write the table of models in docs/models.md from model_registry.json.

python scripts/models_table.py            # after every change of the registry
python scripts/models_table.py --check    # exit status 1 if the page's table differs
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import generated

from fastrank.models import registry
from fastrank.models.spec import CROSS_ENCODER, LATE_INTERACTION, SPARSE_EMBEDDING, TEXT_EMBEDDING, VERIFIED, ModelSpec

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- models: written by scripts/models_table.py -->\n", "<!-- models: end -->\n"
TASKS = {
    TEXT_EMBEDDING: "dense",
    SPARSE_EMBEDDING: "sparse",
    LATE_INTERACTION: "late interaction",
    CROSS_ENCODER: "cross-encoder",
}


def table(specs: Sequence[ModelSpec]) -> str:
    """A line with the counts, and the table."""
    counts = [f"{sum(task in spec.tasks for spec in specs)} {title}" for task, title in TASKS.items()]
    return (
        f"{len(specs)} models: {', '.join(counts)}.\n\n"
        "| model | task | dims | tokens | size | licence | pinned | verified |\n|---|---|---:|---:|---:|---|---|---|\n"
        + "".join(f"| {' | '.join(_cells(spec))} |\n" for spec in specs)
        + "\nSize is the download of the default variant; ~ is approximate. Pinned: every file has a SHA-256 (yes),\n"
        "only the commit is fixed (commit), or neither (no). Licences in italics forbid commercial use.\n"
        + "\nVerified:\n\n"
        + "".join(f"- {name}: {meaning}.\n" for name, meaning in VERIFIED.items())
    )


def _cells(spec: ModelSpec) -> Iterator[str]:
    yield spec.name
    yield ", ".join(TASKS[task] for task in spec.tasks)
    yield next((str(dim) for task in spec.tasks.values() if (dim := getattr(task, "dim", None))), "")
    yield str(spec.max_length or "")
    default = spec.variants[0] if spec.variants else None
    yield "none" if default is None else default.size_label
    yield f"*{spec.license}*" if spec.noncommercial else spec.license
    if default is None or default.pinned:
        yield "yes"
    else:
        yield "commit" if any(getattr(source, "revision", None) for source in default.sources) else "no"
    yield spec.verification


def written(page: str) -> str:
    """The page with the table of the registry's models."""
    return generated.inserted(page, BEGIN, END, table(registry.builtin()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check."""
    return generated.run(arguments, __doc__, PAGE, written)


if __name__ == "__main__":
    sys.exit(main())
