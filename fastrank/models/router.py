"""Which modules the texts of a task go through: Router (once Asym) of sentence-transformers has a way for each task.

Other folders have one way for all. Nothing of a route's name is executed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from fastrank.errors import ModelLoadError
from fastrank.models import fields
from fastrank.models.config import Config
from fastrank.models.sentence_transformers import Module, beneath, class_name, modules

ROUTER: Final = "router_config.json"
QUERY, DOCUMENT = "query", "document"

_KINDS = ("Router", "Asym")
_TEXT = "text"  # the only kind of input here
_KEY = r"\(('\w*'|None), ?('\w*'|None|\([^()]*\))\)"  # of route_mappings: Python's form of (task, modality)


def is_routed(folder: Path) -> bool:
    """Whether texts of different tasks go different ways.

    Raises:
        ModelLoadError: as `modules`.
    """
    return any(module.kind in _KINDS for module in modules(folder))


def route(folder: Path, task: str | None = None) -> list[Module]:
    """The modules that texts of a task go through, in order; none if the folder has no modules.json.

    Args:
        folder: the model's.
        task: `QUERY`, `DOCUMENT` or None: neither.

    Raises:
        ModelLoadError: as `modules`, a router's file is damaged, or it has no way for the task.
    """
    return [each for module in modules(folder) for each in _way(folder, module, task)]


def home(folder: Path, task: str | None = None) -> Path:
    """Where the files of the first module are: config.json, tokenizer.json, sentence_bert_config.json.

    It is the folder itself, or, as versions before 2.0 saved models, one in it; and each way of a router has its own.

    Raises:
        ModelLoadError: as `route`.
    """
    return next((module.folder for module in route(folder, task)), folder)


def _way(root: Path, module: Module, task: str | None) -> list[Module]:
    if module.kind not in _KINDS:
        return [module]
    path = module.folder / ROUTER
    if not path.exists():  # as Asym had it
        path = module.folder / "config.json"
    config = Config.read(path).known(fields.ROUTER)
    types, structure = config.section("types"), config.section("structure")
    ways = {name: structure.strings(name) for name in structure.fields()}
    if not ways or not all(ways.values()):
        raise config.error("structure", "expected lists of modules, by the names of ways")
    name = _chosen(config, list(ways), task)
    made = [
        Module(class_name(path, types.string(each)), beneath(module.folder, each, path, root)) for each in ways[name]
    ]
    if any(each.kind in _KINDS for each in made):
        raise ModelLoadError(f"{path}: a router within a router is not supported")
    return made


def _chosen(config: Config, names: list[str], task: str | None) -> str:
    """The name of the way for texts of a task, as sentence-transformers 6 finds it."""
    parameters = config.section("parameters").known(fields.ROUTER_PARAMETERS)
    default = parameters.string("default_route", default="")
    if default and default not in names:
        raise parameters.error("default_route", f"the routes are {', '.join(map(repr, names))}")
    takes_first = parameters.flag("allow_empty_key", default=True)
    default = default or (names[0] if takes_first else "")
    mapped = _mapped(parameters.section("route_mappings"), names)
    candidates = [mapped.get(key) for key in ((task, _TEXT), (task, None), (None, _TEXT), (None, None))]
    candidates += [name for name in (task, _TEXT) if name in names]
    if task is None:
        candidates.append(default or None)
    found = next(filter(None, candidates), None)
    if found is None:
        what = "texts of no task" if task is None else f"a {task}"
        raise config.error("structure", f"it has no way for {what}; supported: ways for 'query' and 'document'")
    return found


def _mapped(mappings: Config, names: list[str]) -> dict[tuple[str | None, Any], str]:
    """(task, modality) -> name of a way; only modalities of one kind of input count."""
    found: dict[tuple[str | None, Any], str] = {}
    for key in mappings.fields():
        match = re.fullmatch(_KEY, key)
        if match is None:
            raise mappings.error(key, "expected a name such as \"('query', 'text')\"")
        task, modality = (None if part == "None" else part.strip("'") for part in match.groups())
        found[task, modality] = mappings.choice(key, names)
    return found
