"""What `mkdocs build` adds to `docs/`: the README as front page, the notebooks, a reference of the public names."""

import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


@event_priority(100)  # before the plugin that turns notebooks into pages
def on_files(files, config):
    """Pages that are made from files elsewhere in the repository."""
    readme = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=re.sub(r"\]\(docs/", "](", readme)))
    files.append(File.generated(config, "reference.md", content=reference()))
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        target = f"notebooks/{notebook.name}"
        files.append(File(target, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def reference():
    """The public names of `smac_lab` by concept, as its `__init__.py` lists them."""
    source = (ROOT / "smac_lab" / "__init__.py").read_text()
    homes = {}
    for module, names in re.findall(r"^from (smac_lab[\w.]*) import (\([^)]*\)|.+)$", source, re.MULTILINE):
        for name in re.findall(r"\w+", names):
            homes[name] = f"{module}.{name}"
    lines = ["# Reference", "", "Every public name, from its docstring."]
    for line in source.split("__all__ = [")[1].split("]")[0].splitlines():
        if concept := re.match(r"\s*# (.+)", line):
            lines += ["", f"## {concept[1].capitalize()}", ""]
        elif (name := re.match(r'\s*"(\w+)"', line)) and name[1] != "tasks":
            lines += [f"::: {homes[name[1]]}", ""]
    return "\n".join(lines)
