"""What a library owes those who adopt it: one version, one address, pinned packages, files that GitHub reads."""

from __future__ import annotations

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

import flow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
ADDRESSED = ("CITATION.cff", "SECURITY.md", "mkdocs.yml", ".github/ISSUE_TEMPLATE/config.yml")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    newest = re.findall(r"^## \[([^\]]+)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.M)[0]
    assert flow.__version__ == PROJECT["version"] == newest == yaml.safe_load(text("CITATION.cff"))["version"]


def test_the_changelog_groups_what_a_user_notices() -> None:
    headings = re.findall(r"^### (.+)$", text("CHANGELOG.md"), re.M)
    assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", ADDRESSED)
def test_the_project_has_one_address(name: str) -> None:
    found = set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", text(name)))
    assert found == {REPOSITORY}


def test_every_package_that_the_project_asks_for_is_pinned() -> None:
    pinned = {canonical(line.split("==")[0]) for line in text("constraints.txt").splitlines() if "==" in line}
    asked = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    assert {canonical(re.split(r"[\[<>=]", name)[0]) for name in asked} - pinned == set()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_what_github_reads_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md")), ids=lambda path: path.name
)
def test_an_issue_template_has_a_name_and_says_what_it_is_for(path: Path) -> None:
    assert {"name", "about", "labels"} == set(
        yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
    )


def test_the_workflow_runs_the_projects_own_script_on_every_python_that_is_promised() -> None:
    job = yaml.safe_load(text(".github/workflows/test.yml"))["jobs"]["test"]
    promised = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.M)
    assert job["strategy"]["matrix"]["python"] == promised
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_the_workflows_variable_wins_over_that_of_the_script(tmp_path: Path) -> None:
    """GitHub has no vendor's files: their tests are skipped there, although the script asks for every tool."""
    makeflags = yaml.safe_load(text(".github/workflows/test.yml"))["env"]["MAKEFLAGS"]
    (tmp_path / "Makefile").write_text("test:\n\t@echo $$FLOW_REQUIRE_TOOLS\n")
    said = subprocess.run(
        ("sh", "-c", "export FLOW_REQUIRE_TOOLS=1; exec make -s test"),
        cwd=tmp_path,
        env={"MAKEFLAGS": makeflags, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "0\n"
