"""The release of data: `make release-data`, on a small preset."""

from __future__ import annotations

from pathlib import Path

import pytest
import release_data

import smac_lab as lab
from smac_lab.data.storage import load_dataset

pytest.importorskip("minari")


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")
    monkeypatch.setattr("sys.argv", ["release_data.py", "point-robot", "--preset", "smoke", "--out", str(out), *more])
    release_data.main()


def test_a_release_has_the_data_and_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, tmp_path)
    family = lab.make_family("point-robot")
    buffer, tasks = lab.from_minari("point-robot-v0", family), lab.minari_tasks("point-robot-v0", family)
    _, _, record = load_dataset(tmp_path / "collected" / "point-robot", family)
    card = (tmp_path / "point-robot-v0.md").read_text()
    assert f"data of {len(tasks)} tasks" in card
    assert f"{len(buffer):,} transitions" in card
    assert record["checks"]["content_sha256"] in card
    per_episode = float(buffer.rewards.sum()) / sum(record["checks"]["episodes"])
    assert f"| {per_episode:.1f} |" in card, "every task has as many episodes"
    assert "the family's script" in card
    assert "50% of its episodes pursue their own task" in card
    begin = card.index("```python\n") + len("```python\n")
    exec(card[begin : card.index("```", begin)], found := {})
    assert found["buffer"].rows.equal(buffer.rows)


def test_a_release_continues_and_refuses_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, tmp_path)
    collected = tmp_path / "collected" / "point-robot" / "dataset.json"
    before = collected.stat().st_mtime_ns
    run(monkeypatch, tmp_path)
    assert collected.stat().st_mtime_ns == before, "nothing is collected twice"
    with pytest.raises(SystemExit, match=r"was collected with \{'seed': 0\}"):
        run(monkeypatch, tmp_path, "--seed", "1")
