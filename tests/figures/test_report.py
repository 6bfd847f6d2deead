"""The report of a made-up run: what it says is computed from the run, and nothing is fetched from anywhere."""

import csv
import dataclasses
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from smac_lab import cli
from smac_lab.arms import ARMS as KNOWN_ARMS
from smac_lab.config import SMACConfig
from smac_lab.figures import findings, report

ARMS = ("frozen", "self-labelled", "oracle")
FEATURES = {"point-robot": 2, "point-direction": 2, "ant-dir": 3}
CONFIG = {"offline_steps": 600, "online_iterations": 10, "online_updates": 20, "encoder_hidden": [64, 64], "repeats": 4}


def make_run(folder, family="point-robot", seeds=(0, 1, 2), arms=ARMS, best=-4.0, n_tasks=40, shown=8):
    """A made-up run's folder: self-collected context gives -13 before and -10 after any arm, offline context -7."""
    lists = {}
    for phase in ("before", *arms):
        lists[phase] = {"offline_context": [], "online_context": [], "shift": [], "test": []}
        for seed in seeds:
            here = folder / f"seed_{seed}" / ("offline" if phase == "before" else phase)
            here.mkdir(parents=True)
            online = -13.0 if phase == "before" else -10.0
            found = measurement(np.random.default_rng([seed, len(phase)]), family, online, n_tasks, min(shown, n_tasks))
            np.savez(here / "measurement.npz", **found)
            for name, values in lists[phase].items():
                values.append(
                    float(found[name if name == "shift" else name.replace("_context", "") + "_returns"].mean())
                )
            write_metrics(here / "metrics.csv", phase, velocity=family == "cheetah-vel")
    stored = {"family": family, "preset": "cpu", "seeds": list(seeds), "config": CONFIG}
    summary = {
        "default_arm": "self-labelled",
        "before": lists.pop("before"),
        "arms": lists,
        "device": "cpu",
        "threads": 2,
    }
    summary |= {"random": -20.4, "best": best, "behaviour": -14.2, "seconds": {"offline": 31.0, "total": 190.0}}
    summary |= {"versions": {"python": "3.11.7", "torch": "2.13.0"}, "commit": "0123456789abcdef"}
    (folder / "summary.json").write_text(json.dumps({**stored, **summary}))
    (folder / "config.json").write_text(json.dumps({**stored, "arms": list(arms), "data": None}))
    return folder


def measurement(rng, family, online, n_tasks, shown):
    """Arrays as in a measurement.npz, random apart from the level of returns."""
    angle = np.linspace(0.1, 3.0, n_tasks)[:, None]
    tasks = np.hstack([np.cos(angle), np.sin(angle)]) if family == "point-robot" else angle
    widths = {"observations": 2 if family.startswith("point") else 20, "features": FEATURES.get(family, 1)}
    shapes = {f"{kind}_mean": (n_tasks, 2, 5) for kind in ("offline", "online")}
    shapes |= {f"{kind}{name}": (shown, 20, width) for name, width in widths.items() for kind in ("offline_", "")}
    found = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    found |= {f"{kind}_std": np.full((n_tasks, 2, 5), 0.2) for kind in ("offline", "online")}
    found |= {f"kl_{kind}": rng.gamma(3, size=n_tasks) for kind in ("online_offline", "online_prior", "offline_prior")}
    found |= {"tasks": tasks, "shown_tasks": tasks[:shown], "shift": rng.uniform(0, 2, ())}
    for kind, level in (("offline", -7.0), ("online", online), ("test", online)):
        found[f"{kind}_returns"] = rng.normal(level, 0.5, n_tasks)
    if family == "cheetah-vel":
        found |= {"velocity_error_offline": np.float64(0.25), "velocity_error_online": np.float64(-online / 10)}
    return found


def write_metrics(path, phase, velocity):
    """Losses on every row but the first, returns on every second; nothing else is measured while training offline."""
    returns = ["offline_context_return", "online_context_return", "shift", "test_return"]
    returns += ["velocity_error_offline", "velocity_error_online"] if velocity else []
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["step", *report.LOSSES, *returns], restval="")
        table.writeheader()
        for step in range(50, 601, 50) if phase == "before" else range(11):
            measured = [*(report.LOSSES if step else ()), *(returns if phase != "before" and step % 2 == 0 else ())]
            table.writerow({"step": step} | {name: np.exp(-step / 5) for name in measured})


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
    assert source.count("plotly.js (cartesian - minified) v") == 1  # the library, once
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
    found = findings.read_run(run)
    words = report.command(found)
    assert "--offline-steps 600" in words  # differs from the preset
    assert "repeats" not in words  # does not
    assert "--arms" not in words  # all of them is the default
    changes = {"offline_steps": 20, "actor_hidden": [8, 9], "compile": True, "behaviour_changes": {"z_dim": 3}}
    changes |= {"explain_context": False, "z_resampling": 3, "precision": "bf16"}
    config = {**found.summary["config"], **changes}
    again = found._replace(summary={**found.summary, "config": config})
    call = cli.read(shlex.split(report.command(again))[1:])
    preset = SMACConfig.preset("point-robot", "cpu")
    expected = SMACConfig.from_dict({**preset.to_dict(), **config})
    assert dataclasses.replace(preset, **call.keywords["settings"]) == expected


def test_captions_follow_the_data(run, tmp_path):
    """Swap before and after: the sentences turn round."""
    turned = shutil.copytree(run, tmp_path / "turned")
    summary = json.loads((turned / "summary.json").read_text())
    summary["before"], summary["arms"]["self-labelled"] = summary["arms"]["self-labelled"], summary["before"]
    (turned / "summary.json").write_text(json.dumps(summary))
    text = Page(report.write_report(turned).read_text()).text
    assert "higher in 0 of 3 seeds" in text


def test_every_arm_is_told_of_in_its_own_words(tmp_path):
    """All that there are, and one that there is not; what true rewards are worth, alone and with an encoder."""
    arms = (*KNOWN_ARMS, "my own")
    folder = make_run(tmp_path, arms=tuple(findings.folder_of(arm) for arm in arms), n_tasks=4)
    summary = json.loads((folder / "summary.json").read_text())
    named = dict(zip(arms, summary["arms"].values(), strict=True))
    (folder / "summary.json").write_text(json.dumps({**summary, "arms": named, "offline_context": "exploration"}))
    text = Page(report.write_report(folder).read_text()).text
    for arm, known in KNOWN_ARMS.items():
        assert f"arm {arm} {known.about}" in text
    assert "arm my own an arm of one's own" in text
    assert "True rewards and nothing else (frozen-true-rewards): self-collected context gives" in text
    assert "from which encoder and decoder, too, go on learning (oracle): self-collected context gives" in text
    assert "is drawn from recorded exploration of that task" in text
    table = report.print_summary(json.loads((folder / "summary.json").read_text())).splitlines()[3]
    assert table.split() == ["before", "frozen", "self-labelled", "*", *list(KNOWN_ARMS)[2:], "my", "own"]


def test_what_is_not_in_the_run_is_not_told_of(source):
    text = Page(source).text
    assert all(f"arm {arm} {KNOWN_ARMS[arm].about}" in text for arm in ARMS)
    assert "arm no-q" not in text
    assert "frozen-true-rewards" not in text
    assert "is drawn from the recordings of that task" in text


@pytest.mark.parametrize("family", ["cheetah-vel", "ant-dir", "point-direction", "sparse-point-robot", "of-ones-own"])
def test_other_families(family, tmp_path):
    made = "point-robot" if family == "sparse-point-robot" else family
    folder = make_run(tmp_path, "cheetah-vel" if family == "of-ones-own" else made, seeds=(0,), n_tasks=6, shown=4)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "family": family}))
    text = Page(report.write_report(folder).read_text()).text
    assert f"SMAC on {family}" in text
    assert "What it does" in text
    assert ("velocity error" in text) == (family in ("cheetah-vel", "of-ones-own"))


def test_velocity_errors_have_rows_and_curves(tmp_path):
    folder = make_run(tmp_path, "cheetah-vel", seeds=(0, 1), arms=("frozen",), n_tasks=3)
    source = report.write_report(folder).read_text()
    row = Page(source).text.split("velocity error, self-collected context (m/s)")[1]
    assert row.startswith(" 1.30 [1.30, 1.30] 1.30 · 1.30 1.00 ")  # before, then frozen
    assert r"velocity error (m\u002fs), offline context" in source  # a panel of the curves


def test_table_fits_any_page(source):
    """As many columns as phases, of equal width; seeds wrap."""
    table = source.split("<table class=summary>")[1].split("</table>")[0]
    assert table.count("<th scope=col") == 4
    assert table.count("<wbr>") == 2 * (4 * 7 - 2)  # nothing is closed before
    assert "table-layout: fixed" in source


def test_degenerate_runs(tmp_path):
    """One seed, one task, no known best, no arm, no random: everything else is still there."""
    folder = make_run(tmp_path / "one", seeds=(3,), arms=(), best=None, n_tasks=1)
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


def test_success_by_what_tasks_ask_for(run, tmp_path):
    """Offline context / self-collected / held-out, means over seeds; a dash where no seed has such held-out tasks."""
    folder = shutil.copytree(run, tmp_path / "described")
    summary = json.loads((folder / "summary.json").read_text())
    shares = {"offline_context": [0.5, 1.0, 0.75], "online_context": [0.2, 0.4, 0.3]}
    summary["success_by_description"] = {
        "before": {"press <it>": shares | {"test": [0.0, 0.2]}},
        "frozen": {"press <it>": shares},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    text, page = report.print_summary(summary), report.write_report(folder).read_text()
    row = next(line for line in text.splitlines() if line.startswith("press <it>"))
    assert re.split(r"\s{2,}", row.rstrip()) == ["press <it>", "75 / 30 / 10", "75 / 30 / \N{EN DASH}"]
    cells = re.sub(r"\s*\n\s*", "", page)
    assert "press &lt;it&gt;</th><td>75 / 30 / 10</td><td>75 / 30 / \N{EN DASH}</td><td></td><td></td>" in cells
    assert "what is reached" not in report.write_report(run).read_text()
