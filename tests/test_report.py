"""The report of a made-up run: what it says is computed from the run, and nothing is fetched from anywhere."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from smac_lab import report

ARMS = ("frozen", "self-labelled", "oracle")
CONFIG = {"offline_steps": 600, "online_iterations": 10, "online_updates": 20, "encoder_hidden": [64, 64], "repeats": 4}


def make_run(folder, family="point-robot", seeds=(0, 1, 2), arms=ARMS, best=-4.0, n_tasks=40, repeats=2, shown=8):
    """A run's folder filled with plausible numbers: the shift is large before and small after the arms."""
    rng = np.random.default_rng(0)
    base = {"before": (-7.0, -12.9, 2.5), "frozen": (-6.7, -11.6, 2.0), "self-labelled": (-7.2, -9.7, 0.7)}
    base["oracle"] = (-7.1, -9.4, 0.8)
    summary = {"family": family, "preset": "cpu", "seeds": list(seeds), "default_arm": "self-labelled", "arms": {}}
    for phase in ("before", *arms):
        four = {"offline_context": [], "online_context": [], "shift": [], "test": []}
        for seed in seeds:
            here = folder / f"seed_{seed}" / ("offline" if phase == "before" else phase)
            here.mkdir(parents=True)
            found = measurement(np.random.default_rng([seed, len(phase)]), family, base[phase], n_tasks, repeats, shown)
            np.savez(here / "measurement.npz", **found)
            four["offline_context"].append(float(found["offline_returns"].mean()))
            four["online_context"].append(float(found["online_returns"].mean()))
            four["test"].append(float(found["test_returns"].mean()))
            four["shift"].append(float(found["shift"]))
            write_metrics(here / "metrics.csv", rng, phase, base["before"], base[phase])
        if phase == "before":
            summary["before"] = four
        else:
            summary["arms"][phase] = four
    summary |= {"random": -20.4, "best": best, "behaviour": -14.2, "seconds": {"offline": 31.0, "total": 190.0}}
    summary |= {"config": CONFIG, "versions": {"python": "3.11.7", "torch": "2.13.0"}, "commit": "0123456789abcdef"}
    summary |= {"device": "cpu", "threads": 2}
    (folder / "summary.json").write_text(json.dumps(summary))
    stored = {"family": family, "preset": "cpu", "seeds": list(seeds), "arms": list(arms), "data": None}
    (folder / "config.json").write_text(json.dumps({**stored, "config": CONFIG}))
    return folder


def measurement(rng, family, level, n_tasks, repeats, shown, z_dim=5):
    offline, online, shift = level
    drawn, rng = rng, np.random.default_rng(n_tasks)  # tasks do not depend on the phase
    if family == "point-robot":
        angle = rng.uniform(0, np.pi, n_tasks)
        tasks = np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        tasks = rng.uniform(0, 3.0 if family == "cheetah-vel" else 2 * np.pi, (n_tasks, 1))
        angle = tasks[:, 0]
    shown, rng = min(shown, n_tasks), drawn
    lift = np.random.default_rng(7).normal(size=(2, z_dim))
    means = 2 * np.stack([np.cos(angle), np.sin(angle)], 1) @ lift
    means = means[:, None] + 0.1 * rng.normal(size=(n_tasks, repeats, z_dim))
    moved = (1 - 0.3 * min(shift, 2)) * means + 0.3 * shift * rng.normal(size=means.shape) + 0.2 * shift
    goal = np.stack([np.cos(angle), np.sin(angle)], 1)[:shown]
    time = np.arange(20 if family.startswith("point") else 200)
    n_features = {"point-robot": 2, "point-direction": 2, "ant-dir": 3}.get(family, 1)

    def episode(noise):
        ends = goal + noise * rng.normal(size=goal.shape)
        paths = np.minimum(time / (0.6 * len(time)), 1)[None, :, None] * ends[:, None]
        if family == "cheetah-vel":
            reached = tasks[:shown] + noise * rng.normal(size=(shown, 1))
            return np.zeros((shown, len(time), 20)), (reached * (1 - np.exp(-time / 20)))[..., None]
        features = np.gradient(paths, axis=1) if family != "point-robot" else paths
        features = np.concatenate([features, np.zeros((*features.shape[:2], n_features - 2))], 2)
        return paths, features

    observations, features = episode(0.15 * shift)
    offline_observations, offline_features = episode(0.05)
    return {
        "tasks": tasks,
        "test_tasks": tasks[: max(1, n_tasks // 2)] + 0.01,
        "offline_mean": means,
        "offline_std": np.full_like(means, 0.15),
        "online_mean": moved,
        "online_std": np.full_like(means, 0.3),
        "kl_online_offline": shift * rng.gamma(2.0, 3.0, n_tasks),
        "kl_online_prior": rng.gamma(4.0, 1.0, n_tasks),
        "kl_offline_prior": rng.gamma(9.0, 1.0, n_tasks),
        "offline_returns": offline + rng.normal(size=n_tasks),
        "online_returns": online + 2 * rng.normal(size=n_tasks),
        "test_returns": online - 0.3 + 2 * rng.normal(size=max(1, n_tasks // 2)),
        "shift": np.float64(shift + 0.1 * rng.normal()),
        "shift_median": np.float64(shift),
        "shown_tasks": tasks[:shown],
        "observations": observations,
        "features": features,
        "offline_observations": offline_observations,
        "offline_features": offline_features,
    }


def write_metrics(path, rng, phase, before, after):
    """Losses on every row, returns on some; iteration 0 has returns only."""
    losses = ["reward_error", "kl", "critic_loss", "awac_loss", "weight_max"]
    returns = ["offline_context_return", "online_context_return", "shift", "test_return"]
    steps = range(50, 601, 50) if phase == "before" else range(11)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["step", *losses, *returns], restval="")
        table.writeheader()
        for step in steps:
            row = {"step": step}
            if step:
                row |= {name: float(np.exp(-step / 5) + 0.1 * rng.random()) for name in losses}
            if phase != "before" and step % 2 == 0:
                mix = [
                    b + (a - b) * (1 - np.exp(-step / 3)) + 0.2 * rng.normal()
                    for b, a in zip(before, after, strict=True)
                ]
                row |= dict(zip(returns, [*mix, mix[1] - 0.3], strict=True))
            table.writerow(row)


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = tag

    def handle_data(self, data):
        if self.open not in ("script", "style"):
            self.words.append(data)

    def handle_endtag(self, tag):
        self.open = None

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def source(run):
    return report.write_report(run).read_text()


def test_report_is_one_file_that_fetches_nothing(run, source):
    assert [p.name for p in run.iterdir() if p.is_file()].count("report.html") == 1
    assert not list(run.glob(".partial*"))
    assert source.count("plotly.js v") == 1  # the library, once
    for tag, attributes in Page(source).tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert re.match(r"(data:|#|$)", attributes.get(name) or ""), (tag, attributes)
    assert not re.search(r"url\(|@import", source.split("<script>")[0])


def test_report_shows_every_figure_and_number(run, source):
    page = Page(source)
    assert source.count("Plotly.newPlot(") == 8  # six sections, two of losses (the library's own calls differ)
    headings = [words for words in page.words if words.startswith(("What ", "When ", "The "))]
    assert len(headings) >= 6
    summary = json.loads((run / "summary.json").read_text())
    for arm in ("before", "frozen encoder", "self-labelled encoder", "oracle (true rewards)"):
        assert arm in page.text
    mean = np.mean(summary["arms"]["self-labelled"]["online_context"])
    assert f"\N{MINUS SIGN}{abs(mean):.2f}" in page.text
    for seed in range(3):
        assert f"\N{MINUS SIGN}{abs(summary['before']['online_context'][seed]):.2f}" in page.text
    for word in ("0123456789abcdef", "torch 2.13.0", "preset cpu", "seeds 0 1 2", "default", "higher in 3 of 3 seeds"):
        assert word in page.text
    assert "smac-lab train point-robot --preset cpu --seed 0 1 2" in page.text


def test_report_has_no_holes(source):
    outside_plotly = re.sub(r"<script>.*?</script>", "", source, flags=re.S)
    assert not re.search(r"\b(nan|NaN|None|inf|undefined)\b", outside_plotly)
    for call in source.split("Plotly.newPlot(")[1:]:
        assert not re.search(r"\b(NaN|Infinity)\b", call[: call.find("</script>")])


def test_command_repeats_the_run(run):
    words = report.command(report.read_run(run))
    assert "--set" in words
    assert "offline_steps=600" in words  # differs from the preset
    assert "repeats" not in words  # does not
    assert "--arms" not in words  # all of them is the default


def test_captions_follow_the_data(run, tmp_path):
    """Swap before and after: the sentences turn round."""
    turned = shutil.copytree(run, tmp_path / "turned")
    summary = json.loads((turned / "summary.json").read_text())
    summary["before"], summary["arms"]["self-labelled"] = summary["arms"]["self-labelled"], summary["before"]
    (turned / "summary.json").write_text(json.dumps(summary))
    text = Page(report.write_report(turned).read_text()).text
    assert "higher in 0 of 3 seeds" in text


@pytest.mark.parametrize("family", ["cheetah-vel", "ant-dir", "point-direction", "sparse-point-robot", "of-ones-own"])
def test_other_families(family, tmp_path):
    made = "point-robot" if family == "sparse-point-robot" else family
    folder = make_run(tmp_path, "cheetah-vel" if family == "of-ones-own" else made, seeds=(0,), n_tasks=6, shown=4)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "family": family}))
    text = Page(report.write_report(folder).read_text()).text
    assert f"SMAC on {family}" in text
    assert "What it does" in text


def test_degenerate_runs(tmp_path):
    """One seed, one task, no known best, no arm, no random: everything else is still there."""
    folder = make_run(tmp_path / "one", seeds=(3,), arms=(), best=None, n_tasks=1, repeats=1)
    source = report.write_report(folder).read_text()
    page = Page(source)
    assert "No arm of the self-supervised phase was run" in page.text
    assert "one seed: no interval" in page.text
    assert "The best possible return is not known here" in page.text
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"random": None, "behaviour": None, "commit": None}
    summary["before"]["shift"] = [float("nan")]  # a single task has no other to compare with
    (folder / "summary.json").write_text(json.dumps(summary))
    source = report.write_report(folder).read_text()
    assert not re.search(r"\b(nan|NaN)\b", re.sub(r"<script>.*?</script>", "", source, flags=re.S))
    assert report.print_summary(summary)


def test_missing_parts_are_named(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "partly")
    summary = json.loads((folder / "summary.json").read_text())
    del summary["arms"]["oracle"]
    summary["arms"]["frozen"] = {k: v[:2] for k, v in summary["arms"]["frozen"].items()}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "seed_2" / "frozen" / "measurement.npz").unlink()
    shutil.rmtree(folder / "seed_0" / "self-labelled")
    text = Page(report.write_report(folder).read_text()).text
    for name in ("arm oracle", "seed_2/frozen/measurement.npz", "seed_0/self-labelled/metrics.csv"):
        assert name in text
    with pytest.raises(FileNotFoundError, match=r"summary\.json"):
        report.write_report(tmp_path / "nothing")


def test_text_is_escaped_and_films_embedded(tmp_path):
    folder = make_run(tmp_path, seeds=(0,), arms=("frozen",), n_tasks=3)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "family": "</script><b>&x"}))
    (folder / "seed_0" / "frozen" / "video.mp4").write_bytes(b"film")
    source = report.write_report(folder).read_text()
    assert "</script><b>" not in source
    assert "SMAC on &lt;/script&gt;&lt;b&gt;&amp;x" in source
    assert 'src="data:video/mp4;base64,ZmlsbQ=="' in source


def test_print_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    text = report.print_summary(summary)
    assert all(len(line) <= 95 for line in text.splitlines())
    assert "self-labelled *" in text
    assert f"{np.mean(summary['before']['online_context']):.2f}" in text
    assert "random actions -20.40" in text
    alone = report.print_summary(json.loads(json.dumps(summary).replace('"seeds": [0, 1, 2]', '"seeds": [0]')))
    assert "[" not in alone.replace("[95 % interval]", "")


def test_picture(run, tmp_path, monkeypatch):
    kaleido = pytest.importorskip("kaleido")
    try:
        path = report.write_picture(run, tmp_path / "picture.png")
    except RuntimeError as error:
        pytest.skip(f"no browser: {error}")
    assert path.read_bytes().startswith(b"\x89PNG")

    def fail(*_args, **_options):
        raise OSError("no Chrome")

    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", fail)
    with pytest.raises(RuntimeError, match="Chromium"):
        report.write_picture(run, tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()
    assert kaleido
