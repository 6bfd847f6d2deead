"""The README's Python and commands are real."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import smac_lab as lab
from smac_lab.config import SMACConfig

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_first_example_and_own_parts_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, under the smoke preset."""
    smoke = SMACConfig.preset("point-robot", "smoke")
    monkeypatch.setattr(lab.SMACConfig, "preset", lambda *_: smoke)
    monkeypatch.setattr(lab.TaskFamily, "split", lambda self, n_train, n_test, seed: _split(self, 6, 3, seed))
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)
    agent, family = names["agent"], names["CheetahHeight"]()  # type: ignore[operator]
    assert type(agent.encoder).__name__ == "MeanEncoder"  # type: ignore[attr-defined]
    assert family.spec.name == "cheetah-height"


_split = lab.TaskFamily.split


def test_settings_of_the_table_of_differences_exist() -> None:
    table = README.split("## Where paper and public code disagree")[1].split("## ")[0]
    for field, values in re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE):
        for value in re.findall(r'`"([^"]+)"`', values):
            more = {"prior_episodes": 2} if value == "episodes" else {}
            assert getattr(SMACConfig(**{field: value}, **more), field) == value


def test_files_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target


def test_the_code_that_the_table_of_equations_names_exists() -> None:
    table = README.split("**From the paper to the code**")[1].split("**Explorers**")[0]
    named = re.findall(r"\[`([\w.]+)`\]\(smac_lab/(\w+)\.py\)", table)
    assert len(named) >= 9
    for name, file in named:
        module, *path = name.split(".")
        assert module == file
        thing = importlib.import_module(f"smac_lab.{module}")
        for part in path:
            thing = getattr(thing, part)
        assert callable(thing), name


def test_explorers_of_the_table_exist() -> None:
    from smac_lab import widgets

    table = README.split("| explorer | shows |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(set(widgets.__all__) - {"Explorer"})


def test_commands_exist() -> None:
    from smac_lab import cli

    for command in re.findall(r"smac-lab (\w+)", README):
        assert callable(getattr(cli, command)), command
