"""The pages promise nothing that is not there: commands, recipes, keys, flags, files, names, metrics and links."""

import argparse
import copy
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from torch.distributed.run import get_args_parser

from stec import catalogue, protocols
from stec.cli import action, composing, doctor, dynamics, geometry, pick, recipes, report, report_run, shards
from stec.cli import eval as evaluation
from stec.cli import export as export_command
from stec.cli.source import keys_of
from stec.evaluation.linear import sgd
from stec.experiment import Experiment
from stec.nodes import checked

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
FENCES = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"(?:stec-\w+|make|torchrun)(?:$|\s)")
FOLDERS = ("stec", "modalities", "recipes", "tests", "docs", ".ci")


def spans(text: str) -> list[str]:
    """Code within a line of prose."""
    return re.findall(r"`([^`\n]+)`", FENCES.sub("", text))


def commands(text: str) -> Iterator[str]:
    """Command lines of shell blocks (those of torchrun within a line of Slurm's, too) and of prose."""
    for language, block in FENCES.findall(text):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield from (
                    line[found.start() :] for found in [re.search(rf"(?:^|srun ){COMMANDS.pattern}", line)] if found
                )
    yield from (span for span in spans(text) if COMMANDS.match(span))


ALL = {command.removeprefix("srun "): page for page, text in TEXTS.items() for command in commands(text)}
"""{command: the last page that it stands on}"""


def words_of(command: str) -> list[str]:
    return [word for word in shlex.split(command, comments=True) if word != "key=value"]


@pytest.fixture(scope="module", autouse=True)
def door() -> Iterator[None]:
    with initialize_config_dir(version_base="1.3", config_dir=str(recipes.own())):
        yield


def composed(words: list[str]) -> dict[str, Any]:
    """The configuration of stec-train's words, as hydra makes it; names that do not exist are refused."""
    expanded = composing.expanded(words)
    options = [word for word in expanded if word.startswith("-")]
    assert set(options) <= {"-m", "--cfg", "--config-dir"}
    overrides = [word for word in expanded if re.match(r"[\w.]+=", word)]
    if "--config-dir" in options:  # a reader's own recipe
        overrides = [re.sub("^recipe=.*", "recipe=quickstart", word) for word in overrides]
    if "-m" in options:  # one run of the sweep
        overrides = [re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in overrides]
    groups = [word for word in overrides if word.partition("=")[0] in composing.groups()]
    config = copy.deepcopy(chosen(*(word.replace("recipe=NAME", "recipe=quickstart") for word in groups)))
    for word in (word for word in overrides if word not in groups):
        override = OverridesParser.create().parse_override(word)
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=False)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@cache
def chosen(*groups: str) -> DictConfig:
    """Composed once for each choice of groups: hydra takes its time."""
    return compose("train", overrides=list(groups))


def check_train(words: list[str]) -> None:
    if not words:
        assert recipes.listing()
        return
    config = composed(words)
    config["hardware"] |= {"device": "cpu", "precision": "auto"}  # what the reader's machine has is not checked here
    Experiment(config)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(targets)


def check_torchrun(words: list[str]) -> None:
    options = get_args_parser().parse_args(words)
    assert (options.module, options.training_script) == (True, "stec.cli.train")
    check_train(options.training_script_args)


class Parsed(Exception):
    """A command came as far as its arguments."""


def check_eval(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(evaluation, "_measure", lambda arguments: seen.append(arguments) or 0)
    monkeypatch.setattr(action, "_bytes", stop)
    monkeypatch.setattr(geometry, "_measure", stop)
    if words[0] in ("action", "geometry"):
        with pytest.raises(Parsed):
            evaluation.main(words)
        return
    assert evaluation.main(words) == 0
    keys = keys_of(seen[0].keys)
    checked(sgd, keys.pop("sgd", {}), "sgd")
    rest = {key: value for key, value in keys.items() if key not in ("data", "packer")}
    protocols.suite(evaluation._merged(evaluation._protocols(None), rest))


def stop(*_: object) -> None:
    raise Parsed


def check_export(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_command, "_found", stop)
    with pytest.raises(Parsed):
        export_command.main(words)


def check_shards(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if len(words) == 1:  # spoken of, not to be run
        assert words[0] in ("pack", "index", "verify", "ls")
        return
    seen: list[argparse.Namespace] = []
    for name in ("_pack", "_index", "_verify", "_ls"):
        monkeypatch.setattr(shards, name, lambda arguments: seen.append(arguments) or 0)
    assert shards.main(words) == 0
    if seen[0].command == "pack" and seen[0].packer != "NAME":
        options = [word for word in seen[0].words if "=" in word]
        checked(catalogue.find("packer", seen[0].packer), shards._options(options), "packer")


def check_doctor(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_plugin", stop)
    monkeypatch.setattr(doctor, "_speed", stop)
    with pytest.raises(Parsed):
        doctor.main(words)


def check_report(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if len(words) == 1 and "=" not in words[0]:  # spoken of, not to be run
        assert words[0] in report.COMMANDS
        return
    monkeypatch.setattr(pick.pick, "read", stop)
    monkeypatch.setattr(dynamics, "read", stop)
    monkeypatch.setattr(report.ledger, "read_all", stop)
    monkeypatch.setattr(report.ledger, "config_of", stop)
    monkeypatch.setattr(report_run, "Filling", stop)
    monkeypatch.setattr(report_run.os.path, "exists", lambda _path: True)  # PATH is the reader's
    with pytest.raises(Parsed):
        report.main(words)


@pytest.mark.parametrize(("command", "page"), ALL.items(), ids=range(len(ALL)))
def test_a_command_is_one_that_the_program_understands(command, page, monkeypatch):
    program, *words = words_of(command)
    checks = {"stec-train": check_train, "make": check_make, "torchrun": check_torchrun}
    watched = {"stec-eval": check_eval, "stec-export": check_export, "stec-shards": check_shards}
    watched |= {"stec-doctor": check_doctor, "stec-report": check_report}
    if program in checks:
        checks[program](words)
    elif words or program == "stec-train":
        watched[program](words, monkeypatch)
    else:
        assert program in watched


def test_the_readers_of_commands_find_them():
    text = "```sh\nmake test  # all\nsrun torchrun -m x \\\n  y=1\n```\nand `stec-eval RUN`, not `stec.cli`.\n"
    assert list(commands(text)) == ["make test  # all", "srun torchrun -m x    y=1", "stec-eval RUN"]
    assert len(ALL) > 50


@pytest.mark.parametrize(
    "wrong", ["recipe=quickstrat", "recipe=quickstart trainig.epochs=1", "recipe=quickstart batch_size=0"]
)
def test_a_wrong_command_would_be_found(wrong):
    with pytest.raises(Exception, match=r"quickstrat|trainig|batch_size"):
        check_train(wrong.split())


@pytest.mark.parametrize(("page", "text"), TEXTS.items(), ids=lambda part: part if part in TEXTS else "")
def test_links_and_files_exist(page, text):
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [span for span in spans(text) if re.fullmatch(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*", span)]
    own = [span for span in files if "mine" not in span and "NAME" not in span]
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    missing += [name for name in own if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize(("page", "text"), TEXTS.items(), ids=lambda part: part if part in TEXTS else "")
def test_keys_and_metrics_in_the_prose_exist(page, text):
    config = composed(["recipe=cifar100_small_simclr_stec"])
    sound = composed(["recipe=librispeech_cpc_stec_offset"])
    for group in ("actions", "encoder", "identity", "manipulation", "evaluation"):
        config[group] = sound[group] | config[group]
    config["dataset"]["decoder"] |= sound["dataset"]["decoder"]
    packers = {
        key: None for path in recipes.own().glob("dataset/*.yaml") for key in yaml.safe_load(path.read_text())["packer"]
    }
    config["dataset"]["packer"] = packers
    config["actions"] |= {"solarize": None}
    config["encoder"] |= {"image_size": None, "pretrained": None}
    unknown = [
        span
        for span in spans(text)
        if (found := re.match(r"([a-z]+(?:\.[a-z_]+)+)(?:=|$)", span)) and not known(config, found[1])
    ]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "stec").rglob("*.py"))
    for span in spans(text):
        if re.fullmatch(r"(?:train|probe|eval|health|time)/[\w/]+(?:<c>)?", span):
            group, _, name = span.removesuffix("<c>").rpartition("/")
            written = span.removesuffix("<c>") in sources or (group == "health" and f'"{name}":' in sources)
            unknown += [] if written else [span]
    assert unknown == []


def known(config: Any, key: str) -> bool:
    """Is this dotted key one of the configuration? (Names of modules and files are not keys at all.)"""
    first, *rest = key.split(".")
    if first not in config or not isinstance(config[first], dict):
        return True
    for step in (first, *rest):
        if not isinstance(config, dict) or step not in config:
            return False
        config = config[step]
    return True


def rows_naming_a_file() -> Iterator[tuple[str, str]]:
    for line in TEXTS["docs/how-a-batch-flows.md"].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and (found := re.fullmatch(r"`([\w./]+\.py)`", cells[0])):
            yield from ((found[1], name) for name in re.findall(r"`(\w+)`", cells[1]))


def test_the_names_of_the_tour_stand_in_their_files():
    named = list(rows_naming_a_file())
    assert len(named) > 40
    assert [(path, name) for path, name in named if not re.search(rf"\b{name}\b", (ROOT / path).read_text())] == []


def test_every_recipe_and_choice_is_on_the_page_that_lists_them():
    text = TEXTS["docs/which-recipe.md"]
    assert {name for name in recipes.listing() if f"`{name}`" not in text} == set()
    for group in ("encoder", "manipulation", "identity", "actions", "optimizer", "hardware"):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{group}` |")]
        assert set(re.findall(r"`(\w+)`", row)) - {group} == {
            path.stem for path in recipes.own().glob(f"{group}/*.yaml")
        }


@pytest.mark.parametrize("path", sorted(recipes.own().glob("recipe/*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_evidence(path):
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert header[0] == "# @package _global_"
    assert header[1].startswith("# One line: ")
    assert header[2].startswith("# Evidence: ")
    for word in ("Command: ", "Hardware: "):
        assert word in "\n".join(header)
    command = re.search(r"Command: ((?:stec-train|make)[^.\n]*?)(?:\.\s|\.?$)", "\n".join(header), re.MULTILINE)
    assert command is not None
    assert command[1] == "make train" or f"recipe={path.stem}" in command[1].split()


def test_pages_are_short():
    lines = {page: len(text.splitlines()) for page, text in TEXTS.items()}
    lines.pop("docs/faults.md")  # a table with a line for each fault
    assert {page: num for page, num in lines.items() if num > (170 if page == "README.md" else 100)} == {}


def test_the_citation_is_this_version():
    cited = SimpleNamespace(**yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")))
    assert f'__version__ = "{cited.version}"' in (ROOT / "stec/__init__.py").read_text()
    assert cited.license == "Apache-2.0"
