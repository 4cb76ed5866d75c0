"""README and documentation match the program: their commands, options, names, files and versions exist."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement

import live_seg
from live_seg.cli.commands import loaded
from live_seg.cli.main import app
from tests.test_house import FLOORS

ROOT = Path(live_seg.__file__).parents[1]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in (*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")))
    if page.name != "CHANGELOG.md"
}
HELP = {"-h", "--help"}


def code(language: str) -> Iterator[tuple[str, str]]:
    """Each fenced block of a language as (page, text)."""
    for page, text in PAGES.items():
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield page, block


COMMANDS = sorted(
    {
        (page, line.strip())
        for page, block in code("sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("live-seg ")
    }
)


def options_of(words: list[str]) -> set[str]:
    """All options of the command that `words` after "live-seg" begin with."""
    command: Any = typer.main.get_command(app)
    while commands := getattr(command, "commands", None):
        word = words.pop(0)
        if word.startswith("-"):
            break
        assert word in commands, f"There is no command {word}: {', '.join(commands)}"
        command = loaded(commands[word])
    return HELP | {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_and_options_exist(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= options_of(words), page


def test_options_in_tables_and_text_exist() -> None:
    command: Any = typer.main.get_command(app)
    groups = [
        command,
        *map(loaded, command.commands.values()),
        *command.commands["weights"].commands.values(),
    ]
    known = {
        name for group in groups for option in group.params for name in (*option.opts, *option.secondary_opts)
    }
    for page, text in PAGES.items():
        if not page.startswith("docs/guide"):
            continue
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        assert set(re.findall(r"`(--[a-z-]+)", prose)) <= known, page


@pytest.mark.parametrize(("page", "block"), list(code("python")))
def test_python_examples_use_names_that_exist(page: str, block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "live_seg"
        ):
            assert node.attr in live_seg.__all__, page
        if isinstance(node, ast.ImportFrom):
            module = __import__(str(node.module), fromlist=[alias.name for alias in node.names])
            assert all(hasattr(module, alias.name) for alias in node.names), page


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_pages_exist(page: str) -> None:
    folders = "live_seg|tests|docs|samples|weights|benchmarks"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]+)`", PAGES[page]):
        assert (ROOT / name).exists(), name


def test_the_newest_section_of_the_changelog_is_this_version_or_the_next() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\S+) - (unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert len(sections) == len(re.findall("^## ", changelog, re.MULTILINE))
    released = [version for version, date in sections if date != "unreleased"]
    assert live_seg.__version__ in (released[0], sections[0][0])


def test_the_documented_layers_are_those_that_imports_follow() -> None:
    section = PAGES["docs/how-it-works.md"].partition("## Layers of the code")[2]
    rows = section.split("```")[1].removeprefix("text").strip().splitlines()
    assert [set(row.split()) for row in reversed(rows)] == list(FLOORS)


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_once() -> None:
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert len({normalized(name) for name in pinned}) == len(pinned)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {Requirement(text).name for text in (*project["dependencies"], *extras["dev"], *extras["docs"])}
    assert {normalized(name) for name in wanted - {"live-seg"}} <= {normalized(name) for name in pinned}
