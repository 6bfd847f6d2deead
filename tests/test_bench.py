"""The benchmark measures what it says; how fast is never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from smac_lab import bench


def test_compare_measures_the_ratio_of_rates() -> None:
    found = bench.compare("sleep", "naps", 1, lambda: time.sleep(0.02), lambda: time.sleep(0.005), rounds=3)
    assert 0.1 < found.ratio < 0.5
    assert found.low <= found.ratio <= found.high
    assert found.ours == pytest.approx(1 / 0.02, rel=0.5)


def test_bench_prints_json() -> None:
    command = [sys.executable, "-m", "smac_lab", "bench", "--what", "update", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["ratios"]
    assert [r["name"] for r in found] == ["update, 4 x 128", "update, 4 x 256"]
    assert all(r["ours"] > 0 and r["limit"] > 0 for r in found)
