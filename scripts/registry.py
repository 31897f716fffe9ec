"""Maintain model_registry.json: validate it, pin files, compare with the hub, state sizes, add an entry.

    python scripts/registry.py lock BAAI/bge-large-en-v1.5       # commit, sizes and SHA-256 of files that have none
    python scripts/registry.py lock --all
    python scripts/registry.py lock BAAI/bge-m3 --update         # the same of what the main branch has now
    python scripts/registry.py check BAAI/bge-m3                 # exit status 1 if anything differs
    python scripts/registry.py check --all
    python scripts/registry.py validate                          # schema and rules; also part of every other command
    python scripts/registry.py format                            # after an edit by hand
    python scripts/registry.py size acme/new --config config.json   # size_approx, while no hub says the exact sizes
    python scripts/registry.py add intfloat/e5-small-v2 --task text-embedding --description "Dense vectors for ..."

The hub is huggingface_hub's: HF_ENDPOINT and HF_TOKEN apply. The hub states the SHA-256 of large files (git LFS stores
them under it); small files are downloaded and hashed. Run `python scripts/models_table.py` afterwards.

The JSON Schema fastrank/models/model_registry.schema.json describes the form of an entry; `rules` below adds what a
schema cannot say. The package itself reads its registry without checking it again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile  # the package itself does not name it in 1.0
from jsonschema import Draft202012Validator, exceptions, validators

from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import FastrankError, RegistryError
from fastrank.models import registry as package
from fastrank.models import tokenization
from fastrank.models.spec import CROSS_ENCODER, NAME, SPARSE_EMBEDDING, TEXT_EMBEDDING

REGISTRY = Path(__file__).parent.parent / "model_registry.json"
SCHEMA = Path(package.__file__).with_name("model_registry.schema.json")
BITS = {"fp32": 32, "fp16": 16, "int8-dynamic": 8, "int8-weights": 8, "int4-weights": 4}  # of a weight
LEARNED_POSITIONS = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra")  # a table of them
GATED = ("modernbert", "nomic_bert")  # feed-forward layers have three matrices, not two
MAX_LANGUAGES = 20  # more are listed as "multilingual"
GRAPHS = ("onnx/model.onnx", "model.onnx")
CHECKPOINT = "model.safetensors"
MODULES = ("modules.json", "1_Pooling/config.json", "2_Dense/config.json", "config_sentence_transformers.json")
SETTINGS = ("config.json", "tokenizer_config.json", "sentence_bert_config.json", *MODULES)
POOLINGS = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last-token"}

Row = dict[str, Any]


class HubError(Exception):
    """The hub lacks what the registry states, or does not answer."""


class Listing(NamedTuple):
    """The files of a repository at a commit: path -> size and, for large files, SHA-256."""

    commit: str
    files: dict[str, tuple[int, str | None]]


class Hub:
    """Repositories on the hub; each is requested once."""

    def __init__(self) -> None:
        self._api = HfApi()
        self._listings: dict[tuple[str, str | None], Listing] = {}
        self._hashes: dict[tuple[str, str, str], str] = {}

    def files(self, repository: str, revision: str | None) -> Listing:
        """All files at a commit; None: at the main branch's current one."""
        key = (repository, revision)
        if key not in self._listings:
            commit = str(self.card(repository, revision).sha)
            with _one_line_errors(repository):
                tree = list(self._api.list_repo_tree(repository, recursive=True, revision=commit))
            listed = [file for file in tree if isinstance(file, RepoFile)]
            self._listings[key] = Listing(commit, {f.path: (f.size, f.lfs.sha256 if f.lfs else None) for f in listed})
        return self._listings[key]

    def card(self, repository: str, revision: str | None = None) -> Any:
        """The hub's record of a repository: commit, licence, languages."""
        with _one_line_errors(repository):
            return self._api.model_info(repository, revision=revision)

    def sha256(self, repository: str, listing: Listing, path: str) -> str:
        """The SHA-256 of a file: stated by the hub if it is large, computed if it is small."""
        _, stated = listing.files[path]
        if stated is not None:
            return stated
        key = (repository, listing.commit, path)
        if key not in self._hashes:
            with tempfile.TemporaryDirectory() as scratch:
                self._hashes[key] = hashlib.sha256(self.fetch(repository, listing.commit, path, scratch)).hexdigest()
        return self._hashes[key]

    @staticmethod
    def fetch(repository: str, commit: str, path: str, folder: str) -> bytes:
        """Download a small file into `folder` and return its content."""
        with _one_line_errors(repository):
            return Path(hf_hub_download(repository, path, revision=commit, local_dir=folder)).read_bytes()


@contextmanager
def _one_line_errors(repository: str) -> Iterator[None]:
    """Turn any error into one line with the repository's name: those of the client differ between its versions."""
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise HubError(f"{repository}: {lines[0]}") from error


# -- validate ---------------------------------------------------------------------------------------------------------


def validate(document: Any) -> None:
    """Check a registry against the schema and the rules.

    Raises:
        RegistryError: naming entry and field.
    """
    if error := exceptions.best_match(_validator().iter_errors(document)):
        where = _where(document, list(error.absolute_path))
        raise RegistryError(f"{where}: {textwrap.shorten(error.message, 200)}")
    for problem in rules(document["models"]):
        raise RegistryError(problem)


def _validator() -> Any:
    """The schema's validator, for which 1.0 is no integer: it would become a float in Python."""
    strict = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return validators.extend(Draft202012Validator, type_checker=strict)(_read(SCHEMA))


def _where(document: Any, path: list[Any]) -> str:
    """The place in the document, by the entry's name if it has a valid one."""
    if len(path) < 2:
        return "registry" + "".join(f": {part}" for part in path)
    entry, rest = document["models"][path[1]], path[2:]
    name = entry.get("name") if isinstance(entry, dict) else None
    valid = isinstance(name, str) and re.fullmatch(NAME, name) and rest != ["name"]
    return ": ".join([str(name) if valid else f"models[{path[1]}]", ".".join(map(str, rest))]).removesuffix(": ")


def rules(models: Sequence[Row]) -> Iterator[str]:
    """What entries violate of the rules that a schema cannot state: uniqueness, references, equal lengths."""
    owners: dict[str, str] = {}
    for model in models:
        name = model["name"]
        for key in (name, *model.get("aliases", ())):
            if key.casefold() in owners:
                yield f"{name}: the name {key} already belongs to {owners[key.casefold()]}"
            owners[key.casefold()] = name
        for variant, row in model["variants"].items():
            yield from (f"{name}, variants.{variant}: {problem}" for problem in _variant_rules(model, row))
        for task, settings in model["tasks"].items():
            yield from (f"{name}, tasks.{task}: {problem}" for problem in _task_rules(settings))


def _variant_rules(model: Row, variant: Row) -> Iterator[str]:
    paths = [file["path"] for file in variant["files"]]
    if len({path.casefold() for path in paths}) != len(paths):
        yield "files names a path twice"
    yield from (f"{path} is not among files" for path in (variant["model"], "tokenizer.json") if path not in paths)
    stated = re.search(r"(\d+) million parameters", model["description"])
    if stated and (size := variant.get("size_approx")):
        expected = int(stated[1]) * 1e6 * BITS[variant["precision"]] / 8
        if not expected / 2 < size < expected * 2:
            yield f"size_approx is {size}, but {stated[0]} take about {expected:.0f} bytes"


def _task_rules(settings: Row) -> Iterator[str]:
    for position, answer in enumerate(settings.get("answers", ())):
        values, rows = len(answer["values"]), answer.get("rows", 1)
        if len(answer.get("indices", answer["values"])) != values:
            yield f"answers.{position} has {len(answer['indices'])} indices, but {values} values"
        if values % rows:
            yield f"answers.{position} has {values} values, which cannot be {rows} rows"
    task_input = settings.get("task_input") or {}
    for method in ("embed", "query", "passage"):
        if task_input and task_input[method] not in task_input["tasks"]:
            yield f"task_input: {method} must be one of {', '.join(task_input['tasks'])}"


# -- size -------------------------------------------------------------------------------------------------------------


def state_sizes(model: Row, config: Row | None) -> list[str]:
    """State `size_approx` of each variant with files of unknown size, to three digits; the result in words.

    If the size of the weights (the model's file and its external data) is known, it is the sum of the known sizes. Else
    it is the number of parameters that the model's config.json implies, times the bytes of a weight, plus that sum.

    Raises:
        ValueError: `config` is needed.
    """
    done = []
    for name, variant in model["variants"].items():
        unknown = [file["path"] for file in variant["files"] if file["size"] is None]
        if not unknown:
            variant.pop("size_approx", None)
            continue
        size = sum(file["size"] or 0 for file in variant["files"])
        if weights := [path for path in unknown if path.startswith(variant["model"])]:
            if config is None:
                raise ValueError(f"{model['name']} {name}: {weights[0]} has no size; pass --config config.json")
            size += parameters(config) * BITS[variant["precision"]] // 8
        variant["size_approx"] = int(float(f"{size:.3g}"))
        done.append(f"{model['name']} {name}: about {variant['size_approx']} bytes")
    return done


def parameters(config: Row) -> int:
    """The number of weights of an encoder with this config.json, without biases, norms and heads (about 1 %)."""
    kind, hidden = config["model_type"], config["hidden_size"]
    rows = config["vocab_size"] + (config["max_position_embeddings"] if kind in LEARNED_POSITIONS else 0)
    feed_forward = (3 if kind in GATED else 2) * config["intermediate_size"]
    return int(hidden * (rows + config["num_hidden_layers"] * (4 * hidden + feed_forward)))


# -- lock -------------------------------------------------------------------------------------------------------------


def lock(model: Row, hub: Hub, *, update: bool = False) -> list[str]:
    """Fill in commits, sizes and hashes; return a line per variant.

    Without `update`, pinned values stay, and a different value at the pinned commit is an error.
    """
    changes: list[tuple[Row, Row]] = []  # applied at the end, so that no model is left half locked
    done = []
    for variant, row, source in hub_sources(model):
        listing = hub.files(source["hub"], None if update else source["revision"])
        for file in row["files"]:
            path = file["path"]
            if path not in listing.files:
                raise HubError(f"{source['hub']} has no {path} at {listing.commit}")
            facts = {"size": listing.files[path][0], "sha256": hub.sha256(source["hub"], listing, path)}
            wrong = [key for key, value in facts.items() if file[key] not in (None, value)]
            if wrong and not update:
                raise HubError(f"{source['hub']} {path}: {wrong[0]} is {facts[wrong[0]]}, not {file[wrong[0]]}")
            changes.append((file, facts))
        changes.append((source, {"revision": listing.commit}))
        done.append(f"{model['name']} {variant}: {len(row['files'])} files at {listing.commit}")
    for target, facts in changes:
        target.update(facts)
    for variant in model["variants"].values():
        if all(file["size"] for file in variant["files"]):
            variant.pop("size_approx", None)
    return done


def hub_sources(model: Row) -> Iterator[tuple[str, Row, Row]]:
    """(name, variant, hub source) for each hub source of each variant."""
    for name, variant in model["variants"].items():
        for source in variant["sources"]:
            if "hub" in source:
                yield name, variant, source


# -- check ------------------------------------------------------------------------------------------------------------


def check(model: Row, hub: Hub) -> tuple[list[str], list[str]]:
    """Compare a model with the hub: (differences, notes)."""
    problems, notes = [], []
    for variant, row, source in hub_sources(model):
        name = source["hub"]
        try:
            listing = hub.files(name, source["revision"])
            if source["revision"] is None:
                notes.append(f"{variant}: {name} is not pinned; main is at {listing.commit}")
            elif (main := hub.files(name, None).commit) != source["revision"]:
                notes.append(f"{variant}: {name} went on to {main}")
            problems += [f"{variant}: {name} {problem}" for problem in _differences(row["files"], name, listing, hub)]
            if name.casefold() == model["name"].casefold():
                stated = _license(hub.card(name))
                if stated not in (None, model["license"]):
                    problems.append(f"license is {stated} on the hub, not {model['license']}")
        except HubError as error:
            problems.append(f"{variant}: {error}")
    return list(dict.fromkeys(problems)), notes


def _differences(files: Sequence[Row], name: str, listing: Listing, hub: Hub) -> Iterator[str]:
    for file in files:
        path = file["path"]
        if path not in listing.files:
            yield f"has no {path}"
        elif file["size"] not in (None, size := listing.files[path][0]):
            yield f"{path} has {size} bytes, not {file['size']}"
        elif file["sha256"] not in (None, sha256 := hub.sha256(name, listing, path)):
            yield f"{path} has SHA-256 {sha256}, not {file['sha256']}"


# -- add --------------------------------------------------------------------------------------------------------------


def new_entry(repository: str, hub: Hub, options: argparse.Namespace) -> Row:
    """A new, locked entry for a repository, from its files and card.

    Raises:
        HubError: a file or fact that an entry needs is missing.
    """
    listing, card = hub.files(repository, None), hub.card(repository)
    with tempfile.TemporaryDirectory() as scratch:
        for path in {*SETTINGS, "tokenizer.json"} & {*listing.files}:
            hub.fetch(repository, listing.commit, path, scratch)
        settings = {path: _read(Path(scratch, path)) for path in SETTINGS}
        max_length = options.max_length or Tokenizer(tokenization.read(Path(scratch))).max_length
    if (license_ := options.license or _license(card)) is None:
        raise HubError(f"{repository}: its card states no licence; say --license")
    entry: Row = {
        "name": repository,
        "description": options.description,
        "license": license_,
        "languages": _languages(card),
        "max_length": max_length,
        "tasks": {options.task: _settings(options.task, settings, options)},
        "variants": _variants(repository, listing, options.model),
    }
    lock(entry, hub)
    return entry


def _variants(repository: str, listing: Listing, model: str | None) -> Row:
    paths = [model] if model else [*next(([p] for p in GRAPHS if p in listing.files), []), CHECKPOINT]
    variants = {}
    for path in paths:
        if path not in listing.files:
            continue
        beside = [other for other in listing.files if other.startswith((f"{path}_", f"{path}.data"))]  # its weights
        files = dict.fromkeys([path, *sorted(beside), "config.json", "tokenizer.json"])
        variants[PurePosixPath(path).suffix[1:]] = {
            "precision": "fp32",
            "model": path,
            "files": [{"path": file, "size": None, "sha256": None} for file in files],
            "sources": [{"hub": repository, "revision": listing.commit}],
        }
    if not variants:
        raise HubError(f"{repository} has none of {', '.join(paths)}; say --model PATH")
    return variants


def _settings(task: str, files: Row, options: argparse.Namespace) -> Row:
    """The task's fields, from the configuration files of transformers and sentence-transformers."""
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
    return known if 0 < len(known) <= MAX_LANGUAGES else ["multilingual"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# -- the file ---------------------------------------------------------------------------------------------------------


def dumps(value: Any, depth: int = 0) -> str:
    """JSON with one line per innermost object or list, so that changing a file changes one line."""
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
    """Write the registry if it is valid."""
    validate(document)
    path.write_text(dumps(document) + "\n", encoding="utf-8", newline="\n")


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


def _validate(document: Row, _hub: Hub, _options: argparse.Namespace) -> int:
    validate(document)
    print(f"{len(document['models'])} models are valid")
    return 0


def _size(document: Row, _hub: Hub, options: argparse.Namespace) -> int:
    for model in _chosen(document, options):
        print("".join(f"{line}\n" for line in state_sizes(model, options.config and _read(options.config))), end="")
    save(document, options.registry)
    return 0


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
    commands.add_parser("validate").set_defaults(run=_validate)
    commands.add_parser("format").set_defaults(run=_format)
    command = commands.add_parser("size")
    command.add_argument("model", nargs="*")
    command.add_argument("--all", action="store_true")
    command.add_argument("--config", type=Path, help="the model's config.json, where weights have no size yet")
    command.set_defaults(run=_size)
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
