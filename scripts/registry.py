"""Keep model_registry.json true: pin what is not pinned, compare all with the hub, write a new entry.

    python scripts/registry.py lock BAAI/bge-large-en-v1.5       # commit, sizes and SHA-256 of files that have none
    python scripts/registry.py lock --all
    python scripts/registry.py lock BAAI/bge-m3 --update         # the same of what the main branch has now
    python scripts/registry.py check BAAI/bge-m3                 # exit status 1 if anything differs
    python scripts/registry.py check --all
    python scripts/registry.py format                            # after an edit by hand
    python scripts/registry.py add intfloat/e5-small-v2 --task text-embedding --description "Dense vectors for ..."

The hub is huggingface_hub's: HF_ENDPOINT and HF_TOKEN apply. SHA-256 of large files are the hub's own statement (they
are what git LFS stores them by), small ones are downloaded and hashed. Run `python scripts/models_table.py` afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from huggingface_hub import HfApi, RepoFile, hf_hub_download

from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import FastrankError
from fastrank.models.reading import parse
from fastrank.models.spec import CROSS_ENCODER, SPARSE_EMBEDDING, TEXT_EMBEDDING

REGISTRY = Path(__file__).parent.parent / "model_registry.json"
MOST_LANGUAGES = 20  # of which a list is still of use
GRAPHS = ("onnx/model.onnx", "model.onnx")
CHECKPOINT = "model.safetensors"
MODULES = ("modules.json", "1_Pooling/config.json", "2_Dense/config.json", "config_sentence_transformers.json")
SETTINGS = ("config.json", "tokenizer_config.json", "sentence_bert_config.json", *MODULES)
POOLINGS = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last-token"}

Row = dict[str, Any]


class HubError(Exception):
    """The hub has not what the registry says, or does not answer."""


class Found(NamedTuple):
    """What a commit of a repository has: path -> size and, of large files, SHA-256."""

    commit: str
    files: dict[str, tuple[int, str | None]]


class Hub:
    """Repositories of the hub, each asked for once."""

    def __init__(self) -> None:
        self._api = HfApi()
        self._found: dict[tuple[str, str | None], Found] = {}
        self._hashes: dict[tuple[str, str, str], str] = {}

    def files(self, repository: str, revision: str | None) -> Found:
        """All files at a commit; None: of the main branch now."""
        key = (repository, revision)
        if key not in self._found:
            commit = str(self.card(repository, revision).sha)
            with _told_of(repository):
                tree = list(self._api.list_repo_tree(repository, recursive=True, revision=commit))
            listed = [file for file in tree if isinstance(file, RepoFile)]
            self._found[key] = Found(commit, {f.path: (f.size, f.lfs.sha256 if f.lfs else None) for f in listed})
        return self._found[key]

    def card(self, repository: str, revision: str | None = None) -> Any:
        """What the hub says of a repository: commit, licence, languages."""
        with _told_of(repository):
            return self._api.model_info(repository, revision=revision)

    def sha256(self, repository: str, found: Found, path: str) -> str:
        """Of one file: as stated for a large one, computed for a small one."""
        _, stated = found.files[path]
        if stated is not None:
            return stated
        key = (repository, found.commit, path)
        if key not in self._hashes:
            with tempfile.TemporaryDirectory() as scratch:
                self._hashes[key] = hashlib.sha256(self.fetch(repository, found.commit, path, scratch)).hexdigest()
        return self._hashes[key]

    @staticmethod
    def fetch(repository: str, commit: str, path: str, folder: str) -> bytes:
        """The content of a small file, which then lies in `folder`."""
        with _told_of(repository):
            return Path(hf_hub_download(repository, path, revision=commit, local_dir=folder)).read_bytes()


@contextmanager
def _told_of(repository: str) -> Iterator[None]:
    """Any error as one line with the repository's name: the client's own differ between its versions."""
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise HubError(f"{repository}: {lines[0]}") from error


# -- lock -------------------------------------------------------------------------------------------------------------


def lock(model: Row, hub: Hub, *, update: bool = False) -> list[str]:
    """Fill in commits, sizes and hashes; what was done, in words.

    Without `update`, what is pinned stays, and a hub that has something else under the same commit is an error.
    """
    changes: list[tuple[Row, Row]] = []  # made when all is known, so that no model is left half locked
    done = []
    for variant, row, source in hub_sources(model):
        found = hub.files(source["hub"], None if update else source["revision"])
        for file in row["files"]:
            path = file["path"]
            if path not in found.files:
                raise HubError(f"{source['hub']} has no {path} at {found.commit}")
            facts = {"size": found.files[path][0], "sha256": hub.sha256(source["hub"], found, path)}
            wrong = [key for key, value in facts.items() if file[key] not in (None, value)]
            if wrong and not update:
                raise HubError(f"{source['hub']} {path}: {wrong[0]} is {facts[wrong[0]]}, not {file[wrong[0]]}")
            changes.append((file, facts))
        changes.append((source, {"revision": found.commit}))
        done.append(f"{model['name']} {variant}: {len(row['files'])} files at {found.commit}")
    for target, facts in changes:
        target.update(facts)
    return done


def hub_sources(model: Row) -> Iterator[tuple[str, Row, Row]]:
    """(name, variant, its source on the hub) of each variant that has one."""
    for name, variant in model["variants"].items():
        for source in variant["sources"]:
            if "hub" in source:
                yield name, variant, source


# -- check ------------------------------------------------------------------------------------------------------------


def check(model: Row, hub: Hub) -> tuple[list[str], list[str]]:
    """How a model differs from the hub, and what is worth knowing beside."""
    problems, notes = [], []
    for variant, row, source in hub_sources(model):
        name = source["hub"]
        try:
            found = hub.files(name, source["revision"])
            if source["revision"] is None:
                notes.append(f"{variant}: {name} is not pinned; main is at {found.commit}")
            elif (main := hub.files(name, None).commit) != source["revision"]:
                notes.append(f"{variant}: {name} went on to {main}")
            problems += [f"{variant}: {name} {problem}" for problem in _differences(row["files"], name, found, hub)]
            if name.casefold() == model["name"].casefold():
                stated = _license(hub.card(name))
                if stated not in (None, model["license"]):
                    problems.append(f"license is {stated} on the hub, not {model['license']}")
        except HubError as error:
            problems.append(f"{variant}: {error}")
    return list(dict.fromkeys(problems)), notes


def _differences(files: Sequence[Row], name: str, found: Found, hub: Hub) -> Iterator[str]:
    for file in files:
        path = file["path"]
        if path not in found.files:
            yield f"has no {path}"
        elif file["size"] not in (None, size := found.files[path][0]):
            yield f"{path} has {size} bytes, not {file['size']}"
        elif file["sha256"] not in (None, sha256 := hub.sha256(name, found, path)):
            yield f"{path} has SHA-256 {sha256}, not {file['sha256']}"


# -- add --------------------------------------------------------------------------------------------------------------


def new_entry(repository: str, hub: Hub, options: argparse.Namespace) -> Row:
    """An entry for a repository, as far as its files say; it is locked already.

    Raises:
        HubError: the repository lacks what an entry needs, or does not say what must be known.
    """
    found, card = hub.files(repository, None), hub.card(repository)
    with tempfile.TemporaryDirectory() as scratch:
        for path in {*SETTINGS, "tokenizer.json"} & {*found.files}:
            hub.fetch(repository, found.commit, path, scratch)
        settings = {path: _read(Path(scratch, path)) for path in SETTINGS}
        max_length = options.max_length or Tokenizer(Path(scratch)).max_length
    if (license_ := options.license or _license(card)) is None:
        raise HubError(f"{repository}: its card states no licence; say --license")
    entry: Row = {
        "name": repository,
        "description": options.description,
        "license": license_,
        "languages": _languages(card),
        "max_length": max_length,
        "tasks": {options.task: _settings(options.task, settings, options)},
        "variants": _variants(repository, found, options.model),
    }
    lock(entry, hub)
    return entry


def _variants(repository: str, found: Found, model: str | None) -> Row:
    paths = [model] if model else [*next(([p] for p in GRAPHS if p in found.files), []), CHECKPOINT]
    variants = {}
    for path in paths:
        if path not in found.files:
            continue
        beside = [other for other in found.files if other.startswith((f"{path}_", f"{path}.data"))]  # its weights
        files = dict.fromkeys([path, *sorted(beside), "config.json", "tokenizer.json"])
        variants[PurePosixPath(path).suffix[1:]] = {
            "precision": "fp32",
            "model": path,
            "files": [{"path": file, "size": None, "sha256": None} for file in files],
            "sources": [{"hub": repository, "revision": found.commit}],
        }
    if not variants:
        raise HubError(f"{repository} has none of {', '.join(paths)}; say --model PATH")
    return variants


def _settings(task: str, files: Row, options: argparse.Namespace) -> Row:
    """The task's fields, out of the settings of transformers and sentence-transformers."""
    if task == SPARSE_EMBEDDING:
        return {"kind": "splade", "vocab_size": files["config.json"]["vocab_size"]}
    if task == CROSS_ENCODER:
        labels = len(files["config.json"].get("id2label", [0]))
        if labels > 1 and options.label is None:
            raise HubError(f"the model has {labels} classes; say which means relevant: --label")
        return {} if options.label is None else {"label": options.label}
    pooled = files["1_Pooling/config.json"]
    known = [name for mode, name in POOLINGS.items() if pooled.get(f"pooling_mode_{mode}")]
    pooling = options.pooling or (known[0] if len(known) == 1 else None)
    if pooling is None:
        raise HubError("1_Pooling/config.json does not say how tokens are pooled; say --pooling")
    dim = files["2_Dense/config.json"].get("out_features") or pooled.get("word_embedding_dimension")
    listed = files["modules.json"] if isinstance(files["modules.json"], list) else []
    normalize = any(str(module.get("type", "")).endswith("Normalize") for module in listed)
    entry: Row = {"dim": dim or files["config.json"]["hidden_size"], "pooling": pooling, "normalize": normalize}
    prompts = files["config_sentence_transformers.json"].get("prompts", {})
    prefixes = {"query": prompts.get("query"), "passage": prompts.get("passage") or prompts.get("document")}
    if given := {kind: text for kind, text in prefixes.items() if text}:
        entry["prefixes"] = given
    return entry


def _license(card: Any) -> str | None:
    stated = card.card_data.get("license") if card.card_data else None
    return stated.lower() if isinstance(stated, str) else None


def _languages(card: Any) -> list[str]:
    stated = (card.card_data.get("language") if card.card_data else None) or ["en"]
    languages = [stated] if isinstance(stated, str) else [str(language) for language in stated]
    known = [language for language in languages if re.fullmatch("[a-z]{2,3}", language)]
    return known if 0 < len(known) <= MOST_LANGUAGES else ["multilingual"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# -- the file ---------------------------------------------------------------------------------------------------------


def dumps(value: Any, depth: int = 0) -> str:
    """JSON with a line for each thing that holds no other, so that a change of one file is a change of one line."""
    if not isinstance(value, (dict, list)) or not any(isinstance(x, (dict, list)) for x in _items(value)):
        return json.dumps(value, ensure_ascii=False)
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {dumps(item, depth + 1)}" for key, item in value.items()]
        return "{" + inner + f",{inner}".join(rows) + outer + "}"
    return "[" + inner + f",{inner}".join(dumps(item, depth + 1) for item in value) + outer + "]"


def _items(value: Row | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def save(document: Row, path: Path) -> None:
    """Write the registry, if this fastrank can read it."""
    content = dumps(document) + "\n"
    parse(content)
    path.write_text(content, encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 something differs or failed."""
    options = _parser().parse_args(arguments)
    document = json.loads(options.registry.read_text(encoding="utf-8"))
    try:
        return int(options.run(document, Hub(), options))
    except (HubError, FastrankError, ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _chosen(document: Row, options: argparse.Namespace) -> list[Row]:
    models: list[Row] = document["models"]
    if options.all != (not options.model):
        raise ValueError("name models or say --all")
    known = {name.casefold(): model for model in models for name in (model["name"], *model.get("aliases", ()))}
    if unknown := [name for name in options.model if name.casefold() not in known]:
        raise ValueError(f"the registry has no {', '.join(unknown)}")
    return models if options.all else [known[name.casefold()] for name in options.model]


def _lock(document: Row, hub: Hub, options: argparse.Namespace) -> int:
    status = 0
    for model in _chosen(document, options):
        try:
            print(*lock(model, hub, update=options.update), sep="\n")
        except HubError as error:  # what was locked so far is kept
            print(f"{model['name']}: {error}", file=sys.stderr)
            status = 1
    save(document, options.registry)
    return status


def _check(document: Row, hub: Hub, options: argparse.Namespace) -> int:
    differing = 0
    chosen = _chosen(document, options)
    for model in chosen:
        problems, notes = check(model, hub)
        differing += bool(problems)
        print(f"{model['name']}: {'differs' if problems else 'ok'}")
        print("".join(f"  {line}\n" for line in (*problems, *notes)), end="", flush=True)
    print(f"{len(chosen) - differing} of {len(chosen)} are as the hub has them")
    return 1 if differing else 0


def _format(document: Row, _hub: Hub, options: argparse.Namespace) -> int:
    save(document, options.registry)
    return 0


def _add(document: Row, hub: Hub, options: argparse.Namespace) -> int:
    entry = new_entry(options.repository, hub, options)
    document["models"].append(entry)
    save(document, options.registry)
    print(dumps(entry))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--registry", type=Path, default=REGISTRY, help="the file to work on")
    commands = parser.add_subparsers(required=True)
    for name, run in (("lock", _lock), ("check", _check)):
        command = commands.add_parser(name)
        command.add_argument("model", nargs="*")
        command.add_argument("--all", action="store_true")
        command.set_defaults(run=run)
        if run is _lock:
            command.add_argument("--update", action="store_true", help="go on to what the main branch has now")
    commands.add_parser("format").set_defaults(run=_format)
    command = commands.add_parser("add")
    command.add_argument("repository")
    tasks = (TEXT_EMBEDDING, SPARSE_EMBEDDING, CROSS_ENCODER)
    command.add_argument("--task", choices=tasks, required=True)
    command.add_argument("--description", required=True)
    command.add_argument("--license", help="if the card states none")
    command.add_argument("--model", metavar="PATH", help="the graph; default: the usual one, and the checkpoint")
    command.add_argument("--max-length", type=int, help="if the files are wrong")
    command.add_argument("--pooling", choices=("cls", "mean", "last-token", "none"), help="if the files do not say")
    command.add_argument("--label", type=int, help="of a cross-encoder with several classes")
    command.set_defaults(run=_add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
