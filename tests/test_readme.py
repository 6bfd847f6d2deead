"""The Python and the commands of README and docs are real, and their links lead somewhere."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from docs_hooks import line_of

import smac_lab as lab
from smac_lab.config import SMACConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page: page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
BLOCKS = [
    block
    for page in ("README.md", "docs/seeds.md")
    for block in re.findall(r"```python\n(.*?)```", PAGES[ROOT / page], re.DOTALL)
]


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
    table = PAGES[ROOT / "docs" / "paper-and-code.md"]
    for field, values in re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE):
        for value in re.findall(r'`"([^"]+)"`', values):
            more = {"prior_episodes": 2} if value == "episodes" else {}
            assert getattr(SMACConfig(**{field: value}, **more), field) == value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_linked_exists(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", PAGES[page]):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".py":
            assert line_of(linked, anchor), target
        elif anchor:
            titles = re.findall(r"^#+ (.+)$", PAGES[linked], re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_words_of_the_glossary_name_code_that_exists() -> None:
    names = re.findall(r"^\|[^|]+\|[^|]*\| `([\w.]+)` \|", PAGES[ROOT / "docs" / "glossary.md"], re.MULTILINE)
    assert len(names) >= 25
    for name in names:
        module, *path = name.split(".")
        thing = importlib.import_module(f"smac_lab.{module}")
        for part in path:
            found = getattr(thing, part, None)
            thing = importlib.import_module(f"{thing.__name__}.{part}") if found is None else found


def test_the_readme_fits_on_a_screen_or_five() -> None:
    assert len(README.splitlines()) <= 200


def test_the_code_that_the_table_of_equations_names_exists() -> None:
    table = README.split("**From the paper to the code**")[1].split("## ")[0]
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

    table = PAGES[ROOT / "docs" / "explorers.md"].split("| explorer | shows |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(set(widgets.__all__) - {"Explorer"})


def test_commands_exist() -> None:
    from smac_lab import cli

    for command in re.findall(r"smac-lab (\w+)", "".join(PAGES.values())):
        assert callable(getattr(cli, command)), command
