"""Build the release of data: each domain's static data as a Minari data set, with a data card beside it.

python scripts/release_data.py [--out build/release] [--preset cpu] [--seed 0] [FAMILY ...]

The same command continues after a stop. It collects what is missing, writes it, reads it back, and compares every bit.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from smac_lab import cli
from smac_lab.config import SMACConfig
from smac_lab.data.minari import from_minari, to_minari
from smac_lab.data.storage import load_dataset, replace_text
from smac_lab.data.store import CODES
from smac_lab.data.validation import episode_ends
from smac_lab.figures.claims import DOMAINS
from smac_lab.runs.measurement import references
from smac_lab.runs.plan import slug
from smac_lab.tasks import make_family

COLLECTORS = {
    "random": "near-random actions",
    "scripted": "the family's script, with noise on its actions",
    "pearl": "PEARL (Rakelly et al., ICML 2019), trained online on these tasks",
}
LIMITS = {  # of the `cpu` presets' data; docs/results.md has the figures
    "cheetah-vel": [
        "The transitions hardly run: cloning them gains little over random actions.",
        "The exploration alone shows running. It is truly rewarded: PEARL was trained with rewards.",
    ],
    "ant-dir": [
        "A script walks, not a learned agent as in the paper.",
        "Most episodes pursue their own task, so cloning does well.",
        "Methods whose critics must judge other actions than the script's fail on it.",
    ],
    "humanoid-dir": ["Episodes are short and slow, and end in a fall: directions change rewards little."],
    "walker-params": ["The body is the task, and nearly all of the reward can be told from what is observed."],
    "hopper-params": ["The body is the task, and nearly all of the reward can be told from what is observed."],
    "sawyer": [
        "The bodies are primitive shapes; positions are observed, the aim is not.",
        "A script pursues random aims of each task's scene, whatever the task's own.",
    ],
}
PARTS = {"offline": "transitions, for actor and critics", "exploration": "exploration, for the encoder"}


def collected_by(config: SMACConfig) -> list[str]:
    """Describe who collected each part."""
    which = f", each task's {config.behaviour_part} transitions" if config.behaviour_policy == "pearl" else ""
    said = [f"Transitions: {COLLECTORS[config.behaviour_policy]}{which}."]
    if config.behaviour_policy == "scripted":
        said[0] += f" {config.behaviour_on_task:.0%} of its episodes pursue their own task, the rest another aim."
    if config.exploration_transitions:
        said.append(f"Exploration: {COLLECTORS[config.exploration_policy]}; its episodes do not know their task.")
    return said


def card(name: str, folder: Path, data: Path) -> str:
    """Write a data card, in Markdown."""
    family = make_family(name)
    buffer, tasks, record = load_dataset(data, family)
    config, checks = SMACConfig.from_dict(record["config"]), record["checks"]
    random = references(family, tasks, None)["random"]
    task, codes, ends = buffer.task.cpu().numpy(), buffer.codes.cpu().numpy(), episode_ends(buffer)
    rewards = buffer.column("rewards").cpu().numpy().reshape(-1)
    rows = []
    for source, what in PARTS.items():
        own = codes == CODES[source]
        if own.any():
            episodes = np.bincount(task[own & ends], minlength=len(tasks))
            returns = np.bincount(task[own], rewards[own], len(tasks)) / episodes
            low, high = returns.min(), returns.max()
            rows.append(
                f"| {what} | {own.sum():,} | {episodes.sum():,} | {returns.mean():.1f} | {low:.1f} to {high:.1f} |"
            )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    _, held_out = family.split(config.n_train_tasks, config.n_test_tasks, record["seed"])
    limits = LIMITS.get(name.partition(":")[0], []) if record["preset"] == "cpu" else []
    lines = [
        f"# {folder.name}",
        "",
        f"Static, truly rewarded data of {len(tasks)} tasks of `{family.full_name}`, for offline meta-reinforcement "
        f"learning: {len(buffer):,} transitions, {size:.1f} MB.",
        "",
        "| part | transitions | episodes | mean return | by task |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Uniformly random actions return {random:.1f}. An episode has at most {family.horizon} steps.",
        "",
        "**Who collected it.** " + " ".join(collected_by(config)),
        "",
        f"**How.** `smac-lab collect {family.full_name} --preset {record['preset']} --seed {record['seed']}`, in "
        f"{record['seconds'] / 60:.1f} minutes; commit {record['commit']}, "
        + ", ".join(f"{package} {version}" for package, version in record["versions"].items())
        + ". All numbers of the recipe are in the metadata, under `config`.",
        "",
        "**Known limits.**",
        "",
        *(f"- {limit}" for limit in limits),
        f"- One seed ({record['seed']}). The {len(held_out)} held-out tasks have no data; they are "
        f'`make_family("{family.full_name}").split({config.n_train_tasks}, {config.n_test_tasks}, '
        f"{record['seed']})[1]`, and stand in the metadata under `held_out_tasks`.",
        "- Simulated bodies of gymnasium or of this library; nothing was measured on a robot.",
        "",
        "**Checks.** Every reward was recomputed from features, action and task (largest difference "
        f"{checks['reward_error']:.1e}). SHA-256 of the content: `{checks['content_sha256']}`.",
        "",
        "```python",
        "import smac_lab as lab",
        "",
        f'family = lab.make_family("{family.full_name}")',
        f'buffer = lab.from_minari("{folder.name}", family)  # with MINARI_DATASETS_PATH set to this folder',
        f'tasks = lab.minari_tasks("{folder.name}", family)',
        "```",
        "",
    ]
    return "\n".join(lines)


def release(name: str, preset: str, seed: int, out: Path) -> Path:
    """Collect, write and compare one family's data; return its card."""
    family = make_family(name)
    data, dataset_id = out / "collected" / slug(name), f"{slug(name)}-v0"
    if not (data / "dataset.json").exists():
        cli.collect(name, preset=preset, seed=seed, out=data, settings={})
    buffer, tasks, record = load_dataset(data, family)
    asked = {"preset": preset, "seed": seed}
    if given := {key: record[key] for key in asked if record[key] != asked[key]}:
        sys.exit(f"{data} was collected with {given}, not with {asked}: choose another --out")
    config = SMACConfig.from_dict(record["config"])
    _, held_out = family.split(config.n_train_tasks, config.n_test_tasks, seed)
    about = {
        "description": f"Static data of {len(tasks)} tasks of {family.full_name}; see {dataset_id}.md",
        "author": {"smac_lab"},
        "config": json.dumps(config.to_dict()),
        "held_out_tasks": json.dumps(held_out.values.tolist()),
    }
    folder = to_minari(buffer, family, dataset_id, tasks, about, overwrite=True)
    again = from_minari(dataset_id, family)
    if not (again.rows.equal(buffer.rows.cpu()) and np.array_equal(again.segments, buffer.segments)):
        sys.exit(f"{folder} does not read back as it was written")
    page = out / f"{dataset_id}.md"
    replace_text(page, card(name, folder, data))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=DOMAINS, metavar="FAMILY")
    parser.add_argument("--out", type=Path, default=Path("build/release"))
    parser.add_argument("--preset", default="cpu", choices=["smoke", "cpu", "gpu", "paper"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ["MINARI_DATASETS_PATH"] = str(given.out.resolve())
    for name in given.families:
        print(f"\n{name}")
        page = release(name, given.preset, given.seed, given.out)
        print(f"wrote {page}")
    total = sum(file.stat().st_size for file in given.out.glob("*-v0/**/*") if file.is_file()) / 1e6
    print(f"\n{total:.0f} MB in {given.out}, beside collected/, which may be deleted")
    print(f"next: MINARI_DATASETS_PATH={given.out} minari list local")


if __name__ == "__main__":
    main()
