"""Damaged and hostile files, of every kind that the library reads: load or end in one error, and do nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import fuzz_files
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import smac_lab as lab
from smac_lab.data.episodes import returns_to_go
from smac_lab.data.storage import inside

KINDS = list(fuzz_files.KINDS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_load_or_are_refused(kind: str) -> None:
    """50 of each kind; `python scripts/fuzz_files.py` tries 10,000."""
    problems: list[str] = []
    counts = fuzz_files.fuzz([kind], 50, seed=7, say=problems.append)[kind]
    assert problems == []
    assert counts["refused"] > 5


def test_messages_quote_little_of_a_hostile_file() -> None:
    assert str(lab.StorageError("short")) == "short"
    assert len(str(lab.StorageError(f"a format of {'x' * 100_000}"))) < 1_010


def test_a_fuzzer_sees_what_it_looks_for(tmp_path: Path) -> None:
    """Readers that misbehave, each in its way."""
    (tmp_path / "mutant").mkdir()
    (tmp_path / "outside").write_text("secret")

    def slow(_: Path) -> None:
        while True:
            pass

    def raises(error: BaseException) -> Any:
        def read(_: Path) -> None:
            raise error

        return read

    bad: dict[str, Any] = {
        "KeyError": raises(KeyError("x")),
        "characters": raises(ValueError("")),
        "open ": lambda _: (tmp_path / "outside").read_text(),
        "write ": lambda folder: (folder / "new").write_text("x"),
        "os.system": lambda _: __import__("os").system("true"),
        "pickle.find_class": lambda _: __import__("pickle").loads(b"cbuiltins\nlen\n."),
        "not done after": slow,
    }
    allowed, fuzz_files.SECONDS = fuzz_files.SECONDS, 1
    try:
        for message, read in bad.items():
            outcome, said = fuzz_files.try_one(fuzz_files.Kind(lambda _: None, read), tmp_path / "mutant")
            assert outcome == "problem", message
            assert message in said
    finally:
        fuzz_files.SECONDS = allowed


# -- properties ------------------------------------------------------------------------------------------
@given(JSON)
def test_a_name_leads_nowhere_but_into_its_folder(name: Any) -> None:
    try:
        found = inside(Path("folder"), name)
    except lab.StorageError:
        return
    assert found.parent == Path("folder")
    assert found.resolve().parent == Path("folder").resolve()


@given(st.sampled_from([field.name for field in dataclasses.fields(lab.SMACConfig)]), JSON)
def test_a_field_of_the_config_is_kept_or_refused(name: str, value: Any) -> None:
    """Whatever stands in a file: another value is read back as it is, or the error names the field."""
    try:
        config = lab.SMACConfig.from_dict({name: value})
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert name in said or "behaviour_changes" in said
        return
    stored = json.loads(json.dumps(config.to_dict()))
    assert lab.SMACConfig.from_dict(stored) == config
    kept = getattr(config, name)
    assert kept == (tuple(value) if isinstance(value, list) else value)
    assert not isinstance(kept, float) or math.isfinite(kept)


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=1, max_size=30), st.sampled_from([0.0, 0.5, 1.0])
)
def test_returns_never_cross_the_end_of_an_episode(steps: list[tuple[int, bool]], discount: float) -> None:
    rewards, ends = torch.tensor([[float(r), float(e)] for r, e in steps], dtype=torch.float64).T
    found = returns_to_go(rewards, ends, discount)
    for start in range(len(steps)):
        stop = next((i for i in range(start, len(steps)) if steps[i][1]), len(steps) - 1)
        expected = sum(discount ** (i - start) * steps[i][0] for i in range(start, stop + 1))
        assert found[start] == pytest.approx(expected)
