"""Config from YAML and the command line, through jsonargparse: unknown keys fail and name the nearest known one."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from utils.classifier_config import ClassifierRunConfig
from utils.config import RunConfig
from utils.errors import ConfigError, did_you_mean
from utils.run_files import CONFIG
from utils.shipped import ROOT

set_parsing_settings(docstring_parse_attribute_docstrings=True)
DOORS: dict[type[Any], tuple[str, str]] = {
    RunConfig: ("detector", "train.py"),
    ClassifierRunConfig: ("classifier", "classify.py train"),
}
LAUNCHING = ("--cluster", "--workers")
RESUMING = ("--resume", *LAUNCHING)
"""Options that a run can be gone on with."""
ConfigT = TypeVar("ConfigT", RunConfig, ClassifierRunConfig)


class _Layout(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Fields as jsonargparse describes them, below a description as it is written."""


class TrainingRequest(NamedTuple, Generic[ConfigT]):
    """What a training door was asked for: a new run, or one to go on with."""

    config: ConfigT
    run_dir: str
    resume: bool
    anyway: bool = False
    dry_run: bool = False
    cluster: str | None = None
    workers: int | None = None
    """Workers to start on ``cluster``."""
    command: tuple[str, ...] = ()
    """What each of them is to run: a door with its arguments."""


def training_request(description: str, config_type: type[ConfigT], argv: Sequence[str]) -> TrainingRequest[ConfigT]:
    """Reads the command line of a training door: every field of the config, ``--config``, ``--run-dir``, ``--resume``,
    and what is done with the run: ``--dry-run``, ``--cluster``.

    ConfigError when it cannot be understood.
    """
    parser = run_config_parser(description, config_type)
    parser.add_argument("--run-dir", type=str, default="logs/run", help="where the files of the new run go")
    parser.add_argument("--resume", type=str, help="a run directory: go on where that run stopped")
    parser.add_argument("--resume-anyway", action="store_true", help="go on though config or data were changed since")
    parser.add_argument("--dry-run", action="store_true", help="try all phases, write nothing, say how long it takes")
    parser.add_argument("--cluster", choices=["ray"], help="start workers on a Ray cluster; see docs/scale.md")
    parser.add_argument("--workers", type=int, help="how many; unless given one per GPU, or per machine without")
    arguments = parse(parser, argv)
    _refuse_contradictions(arguments, argv)
    if arguments.resume is None:
        config, run_dir = run_config(parser, arguments, config_type), arguments.run_dir
    else:
        config, run_dir = read_run_config(Path(arguments.resume) / CONFIG, config_type), arguments.resume
    return TrainingRequest(
        config,
        run_dir,
        resume=arguments.resume is not None,
        anyway=arguments.resume_anyway,
        dry_run=arguments.dry_run,
        cluster=arguments.cluster,
        workers=arguments.workers,
        command=_command(config_type, argv),
    )


def _refuse_contradictions(arguments: Any, argv: Sequence[str]) -> None:
    if arguments.workers is not None and (arguments.cluster is None or arguments.workers < 1):
        raise ConfigError(f"--workers: {arguments.workers}: give 1 or more, together with --cluster")
    for option, folder in (("--resume", arguments.resume), ("--run-dir", arguments.run_dir)):
        if folder == "":
            raise ConfigError(f"{option}: is empty: name a run directory")
    if arguments.resume is None:
        if arguments.resume_anyway:
            raise ConfigError("--resume-anyway: says how to go on: give the run with --resume RUN")
        recipe = Path(arguments.run_dir, CONFIG).resolve()
        if any(Path(str(one)).resolve() == recipe for one in arguments.config or ()):
            raise ConfigError(f"--run-dir: {arguments.run_dir}: its config would replace the recipe: give another")
        return
    if arguments.dry_run:
        raise ConfigError("--dry-run: tries a new run: leave --resume out")
    if any(word.startswith("--") and not word.startswith(RESUMING) for word in argv):
        raise ConfigError("--resume: goes on with the run's own config; leave the other options out")


def _command(config_type: type[Any], argv: Sequence[str]) -> tuple[str, ...]:
    """``argv`` after its door, without what is said to the launcher alone."""
    words = iter(argv)
    kept = []
    for word in words:
        if word in LAUNCHING:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in LAUNCHING)):
            kept.append(word)
    return (*DOORS[config_type][1].split(), *kept)


def run_config_parser(description: str, config_type: type[Any] = RunConfig) -> ArgumentParser:
    """A parser that knows ``--config FILE`` and every field of ``config_type``; doors add their own arguments."""
    prog = DOORS[config_type][1]
    parser = ArgumentParser(
        prog, description=description, exit_on_error=False, allow_abbrev=False, formatter_class=_Layout
    )
    parser.add_argument("--config", action="config", help="YAML recipe, such as those in configs/; flags override it")
    parser.add_class_arguments(config_type)
    # That jsonargparse takes a file for a whole section, too, would only be taken for the field of that name.
    for action in parser._actions:
        if action.dest in {field.name for field in dataclasses.fields(config_type)}:
            action.help = argparse.SUPPRESS
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """Parsed arguments. ConfigError instead of jsonargparse's own errors."""
    said = sys.argv[1:] if argv is None else argv
    words = [part for word in said for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    recipe = ""
    for place, (option, value) in enumerate(itertools.pairwise(words)):
        if option == "--config":
            if not Path(value).is_file():
                raise ConfigError(f"--config: {value}: no such file; recipes lie in {ROOT / 'configs'}")
            recipe = value
            # Read first, so that flags override it wherever they stand.
            words = [option, value, *words[:place], *words[place + 2 :]]
            break
    try:
        for option, value in itertools.pairwise(words):
            if option == "--config":
                _refuse_repeated_keys(value)
        return parser.parse_args(words)
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config: {recipe}: is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except RecursionError as error:
        raise ConfigError(f"--config: {recipe}: holds itself: write it out") from error
    except (ArgumentError, OSError) as error:
        raise ConfigError(_teach(str(error), parser, recipe)) from error


def _refuse_repeated_keys(recipe: str) -> None:
    """ConfigError for a key that is given twice, of which YAML would keep the last without a word."""
    try:
        with open(recipe, encoding="utf-8") as text:
            waiting = [yaml.compose(text, yaml.SafeLoader)]
    except yaml.YAMLError:
        return  # jsonargparse says what is wrong.
    looked_at = set()
    while waiting:
        node = waiting.pop()
        if id(node) in looked_at:
            continue  # an alias
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                said = str(key.value)
                if said in seen:
                    line = key.start_mark.line + 1
                    raise ConfigError(f"--config: {recipe}: line {line}: {said}: given twice: keep one")
                seen.add(said)
                waiting.append(value)


def run_config(parser: ArgumentParser, arguments: Namespace, config_type: type[ConfigT]) -> ConfigT:
    """The config in parsed arguments. ConfigError for values out of range or a section without fields."""
    sections = [field.name for field in dataclasses.fields(config_type)]
    for section in sections:
        if not isinstance(arguments[section], Namespace):
            raise ConfigError(f"{section}: {arguments[section]}: is a section: write fields below it, or leave it out")
    made = parser.instantiate(arguments)
    return config_type(**{section: getattr(made, section) for section in sections})


def read_run_config(path: Path, config_type: type[ConfigT]) -> ConfigT:
    """The config a run saved. ConfigError when it is missing or was changed into something unusable."""
    if not path.is_file():
        raise ConfigError(f"{path}: not found: a run to resume holds the config it was started with")
    parser = run_config_parser("", config_type)
    try:
        return run_config(parser, parse(parser, ["--config", str(path)]), config_type)
    except ConfigError:
        _refuse_other_door(path, config_type)
        raise


def _refuse_other_door(path: Path, config_type: type[Any]) -> None:
    """ConfigError that names the right door when ``path`` is the config of another kind of run."""
    for other, (kind, door) in DOORS.items():
        if other is config_type:
            continue
        parser = run_config_parser("", other)
        try:
            run_config(parser, parse(parser, ["--config", str(path)]), other)
        except ConfigError:
            continue
        raise ConfigError(f"{path}: is the run of a {kind}: go on with python {door} --resume {path.parent}")


UNKNOWN_KEY = (
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
    r"Option '(?P<key>[\w.]+)' is not accepted",
    r"nrecognized arguments?: --(?P<key>[\w.\-]+)",
)


NOISE = r"Parser key |Problem with given class_path '[\w.]+': "
NO_SECTION = r'"?(?P<section>\w+)"?: Unable to load config'
NO_RECIPE = r"(Unexpected config|Problems parsing config): ?(?P<why>.*)"
WRONG_VALUE = r'(?P<key>("[\w.]+": )+)(Expected|Does not validate) (?P<kinds>.*?)\.? (Got|Given) value: (?P<value>.*)'
KINDS = {
    r"<class 'int'>": "a whole number",
    r"<class 'float'>": "a number",
    r"<class 'bool'>": "true or false",
    r"<class 'NoneType'>": "null",
    r"<class 'tuple'>": "a list",
    r"a tuple with (\d+) elements": r"a list of \1",
    r"Literal\[(.*)\]": r"one of \1",
}
LONGEST = 60
"""Characters of a value that a message repeats: a wrong file can be given in place of one."""


def _teach(message: str, parser: ArgumentParser, recipe: str) -> str:
    """One line: the nearest known key where an unknown one was given, what a value of the wrong kind must be."""
    text = re.sub(NOISE, "", " ".join(message.split()))
    for pattern in UNKNOWN_KEY:
        found = re.search(pattern, text)
        if found:
            parts = found.groupdict()
            key = ".".join(part for part in (parts.get("group"), parts["key"]) if part)
            known = [str(action.dest) for action in parser._actions]
            return f"{key}: unknown key{did_you_mean(key.replace('-', '_'), known) or '; see --help'}"
    if found := re.match(NO_SECTION, text):
        section = found["section"]
        fields = [str(action.dest) for action in parser._actions if str(action.dest).startswith(f"{section}.")]
        return f"--{section}: is a section: give its fields, such as --{fields[0]}; see --help"
    if found := re.match(NO_RECIPE, text):
        why = f" ({found['why']})" if "parsing" in found[1] else ""
        return f"--config: {recipe}: is no recipe{why}: write sections with fields below them, as the files in configs/"
    if found := re.match(WRONG_VALUE, text):
        wanted = [one.expand(plain) for kind, plain in KINDS.items() if (one := re.search(kind, found["kinds"]))]
        value = found["value"] if len(found["value"]) <= LONGEST else f"{found['value'][:LONGEST]}..."
        if wanted:
            key = found["key"].replace('"', "")
            return f"{key}{value}: must be {' or '.join(wanted)}"
    return re.sub(r'^"([\w.]+)"', r"\1", text)
