"""The frame agrees with itself: dependencies, pins, versions, make targets, and what an import costs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import smac_lab
from smac_lab.runs.summary import versions

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TARGETS = ["setup", "demo", "lab", "test", "learning", "cheetah", "bench", "lint", "clean"]


def direct() -> list[Requirement]:
    """What pyproject.toml asks for, extras included, but for smac-lab's own extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    return [r for r in map(Requirement, lines) if canonicalize_name(r.name) != "smac-lab"]


def pins() -> dict[str, str]:
    """constraints.txt as canonical name to version."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "constraints.txt holds exact public versions"
    named = [(canonicalize_name(name), version) for name, version in (line.split("==") for line in lines)]
    assert len(dict(named)) == len(named), "a package stands there twice"
    return dict(named)


@pytest.mark.parametrize("requirement", direct(), ids=lambda r: r.name)
def test_direct_dependency_is_pinned_within_its_range(requirement):
    version = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"{version} is pinned, but pyproject.toml says {requirement}"


def test_every_package_that_comes_along_is_pinned():
    """Follows the installed packages' own requirements, as pip does."""
    known, todo, seen = pins(), direct(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        assert name in known, f"{name} is missing from constraints.txt"
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in (requirement.extras or {""})]
            if needed.marker is None or any(needed.marker.evaluate(e) for e in environments):
                todo.append(needed)
    assert set(known) == {name for name, _ in seen}, "constraints.txt pins packages that nothing needs"


def test_pinned_versions_run_on_the_oldest_python():
    """Debian 12 has Python 3.11.2; a pin that asks for 3.11.5 sends pip searching for many minutes, in vain."""
    oldest = next(iter(SpecifierSet(PROJECT["requires-python"]))).version + ".0"
    installed = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions()}
    for name, version in pins().items():
        if name in installed and installed[name].version.split("+")[0] == version:
            needs = installed[name].metadata["Requires-Python"] or ""
            assert SpecifierSet(needs).contains(oldest), f"{name}=={version} needs Python {needs}"


def test_dev_includes_every_other_extra():
    included = {extra for line in EXTRAS["dev"] for extra in Requirement(line).extras if line.startswith("smac-lab")}
    assert included == set(EXTRAS) - {"dev"}


def test_conda_environment_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert f"conda activate {environment['name']}" in (ROOT / "docs" / "installing.md").read_text()
    *packages, pip = environment["dependencies"]
    (python,) = (p.split("=")[1] for p in packages if p.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert packages == [f"python={python}", "pip"]
    # The same set-up as the Makefile's, from the same pins.
    assert pip == {"pip": ["--constraint constraints.txt", "--editable .[dev]"]}
    assert "--editable '.[dev]' --constraint constraints.txt" in (ROOT / "Makefile").read_text()


def test_oldest_python_is_told_once():
    oldest = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    assert oldest, "the check in the Makefile reads a plain lower bound"
    assert f"sys.version_info < (3, {oldest[1]})" in (ROOT / "Makefile").read_text()


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(\d[^\]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert citation["version"] == newest[1] == smac_lab.__version__
    assert citation["date-released"] == newest[2]
    assert citation["license"] == PROJECT["license"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists(target):
    dry = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    assert re.search(rf"^{target}:.*  ## ", (ROOT / "Makefile").read_text(), re.MULTILINE), "`make help` leaves it out"


@pytest.mark.parametrize("module", ["smac_lab", "smac_lab.cli"])
def test_import_is_light(module):
    """Figures, widgets, films and logs are loaded by what uses them; a notebook's first cell does not wait for them."""
    heavy = {"plotly", "ipywidgets", "anywidget", "IPython", "tensorboard", "pandas", "matplotlib", "scipy", "mediapy"}
    heavy |= {"minari", "h5py", "OpenGL", "glfw", "mujoco.renderer", "mujoco.gl_context", "mujoco.viewer"}
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(loaded.stdout.split())


def test_a_checkout_on_the_path_knows_its_version(monkeypatch):
    """A run from a checkout that is not installed must not fail at its summary, after all its work."""
    known = metadata.version

    def version(name):
        if name == "smac-lab":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    assert versions()["smac-lab"] == smac_lab.__version__
