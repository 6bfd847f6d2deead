"""Add generated pages to `docs/`: front page, notebooks, source, reference."""

import ast
import functools
import html as markup
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import draw_layers  # in this file's folder
import make_front_page
from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PLACE = '<div id="shift-explorer"></div>'
EXPLORERS = '<div id="explorer-pages"></div>'  # on the page of explorers
LAYERS = '<div id="layers"></div>'  # on the design page


@event_priority(100)  # before the notebooks' plugin
def on_files(files, config):
    def add(path, content):
        files.append(File.generated(config, path, content=content))

    add("index.md", front_page())
    add("contributing.md", (ROOT / "CONTRIBUTING.md").read_text())
    add("reference.md", reference())
    add("explorer/data.js", make_front_page.script(shift_data()))
    add("shift-explorer.html", make_front_page.page(shift_data()))
    for name, page in explorer_pages().items():
        add(f"explorers/{name}.html", page)
    for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        files.append(File(f"notebooks/{notebook.name}", str(ROOT), config.site_dir, config.use_directory_urls))
    for path in linked_sources():
        add(f"source/{path}.md", source_page(path))
    return files


def on_page_content(html, page, config, files):
    """Insert pictures, which bypass the Markdown parser, and convert equations."""
    if page.is_homepage:
        html = html.replace(PLACE, make_front_page.fragment())
    if LAYERS in html:
        html = html.replace(LAYERS, f'<div style="overflow-x:auto">{draw_layers.svg()}</div>')
    if EXPLORERS in html:
        links = (f'<a href="explorers/{name}.html">{words}</a>' for name, words in EXPLORER_PAGES.items())
        html = html.replace(EXPLORERS, f"<p>{', '.join(links)}</p>")
    if page.file.src_uri.endswith(".ipynb"):
        return re.sub(
            r'(?s)<div class="[^"]*jp-RenderedMarkdown.*?</div>', lambda cell: DOLLARS.sub(mathml, cell[0]), html
        )
    if page.file.src_uri == "glossary.md":
        html = re.sub(
            r"<tr>\s*<td>([^<]+)</td>", lambda row: row[0].replace("<td>", f'<td id="{anchor(row[1])}">'), html
        )
    if page.file.src_uri == "reference.md":
        html = link_words(html, glossary())
    return ARITHMATEX.sub(mathml, html)


def on_post_page(html, page, config):
    """Link files of the repository to pages of the site."""
    home = home_of(page.file.src_uri)

    def led(match):
        target = site_target(home, match[1])
        return f'href="{os.path.relpath(target, Path(page.file.dest_uri).parent)}"' if target else match[0]

    return re.sub(r'href="([^"]+)"', led, html)


# -- equations -------------------------------------------------------------------------------------------
DOLLARS = re.compile(r"(?s)\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$<]+?)\$")
ARITHMATEX = re.compile(
    r'(?s)<div class="arithmatex">\\\[(?P<block>.+?)\\\]</div>|<span class="arithmatex">\\\((?P<inline>.+?)\\\)</span>'
)


def mathml(match):
    """Return a LaTeX equation as MathML, which needs no script."""
    if match["block"] is None:
        return convert(markup.unescape(match["inline"]).strip())
    return f'<div class="equation">{convert(markup.unescape(match["block"]).strip(), display="block")}</div>'


# -- words of the glossary -------------------------------------------------------------------------------
def anchor(word):
    return re.sub(r"\W+", "-", word.strip().lower()).strip("-")


def glossary():
    """Return the words of the glossary, each with its anchor."""
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    return {word.strip(): anchor(row) for row in rows if row not in ("word", "---") for word in row.split(",")}


def link_words(html, words):
    """Link the first use of each word in each docstring to the glossary."""
    pattern = re.compile(
        rf"\b({'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})(?=s?\b)", re.IGNORECASE
    )
    linked, inside, pieces = set(), 0, re.split(r"(<[^>]+>)", html)

    def link(found):
        word = found[1].lower()
        if word in linked or word not in words:
            return found[0]
        linked.add(word)
        return f'<a href="glossary.html#{words[word]}">{found[0]}</a>'

    for i, piece in enumerate(pieces):
        if '<div class="doc doc-object' in piece:
            linked.clear()
        elif tag := re.match(r"<(/?)(a|code|pre|h\d|summary|label|math)\b", piece):
            inside += -1 if tag[1] else 1
        elif not inside and not piece.startswith("<"):
            pieces[i] = pattern.sub(link, piece)
    return "".join(pieces)


# -- links into the repository ---------------------------------------------------------------------------
def home_of(uri):
    """Return the folder to which a page's links are relative."""
    if uri in ("index.md", "contributing.md"):
        return ROOT
    return (ROOT / uri if uri.startswith("notebooks/") else ROOT / "docs" / uri).parent


def site_target(home, link):
    """Return a linked file's address in the site; None for other links."""
    parts = urlsplit(link)
    path = (home / parts.path).resolve()
    if parts.scheme or parts.netloc or not parts.path or ROOT not in path.parents:
        return None
    path = path.relative_to(ROOT)
    anchor = f"#{parts.fragment}" if parts.fragment else ""
    if path.suffix == ".md" and path.parts[0] == "docs":
        return f"{path.relative_to('docs').with_suffix('.html').as_posix()}{anchor}"
    if path.suffix == ".ipynb" and path.parent.as_posix() == "notebooks":
        return path.with_suffix(".html").as_posix()
    if path.as_posix() in ("README.md", "CONTRIBUTING.md"):
        return {"README.md": "index.html", "CONTRIBUTING.md": "contributing.html"}[str(path)] + anchor
    if path.as_posix() not in linked_sources():
        return None
    line = line_of(ROOT / path, parts.fragment) if parts.fragment else None
    return f"source/{path.as_posix()}.html{f'#__codelineno-0-{line}' if line else ''}"


@functools.cache
def linked_sources():
    """List the files without pages to which a page or notebook links."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = set()
    for page in [*pages, *sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path = (page.parent / urlsplit(link).path).resolve()
            own = path.suffix in (".md", ".ipynb", ".png", ".webp") or "://" in link or link.startswith("#")
            if path.exists() and ROOT in path.parents and not own:
                found.add(path.relative_to(ROOT).as_posix())
    return sorted(found)


def line_of(path, name):
    """Return the line where a module defines `name`, such as `SMAC.update`."""
    body, line = ast.parse(path.read_text()).body, None
    for part in name.split("."):
        line, body = next(
            (node.lineno, node.body)
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
        )
    return line


def source_page(path):
    """Return a page with a file and its line numbers, or with a folder's names."""
    file = ROOT / path
    if file.is_dir():
        shown = "\n".join(f"- `{path}/{one.name}`" for one in sorted(file.iterdir()) if not one.name.startswith("."))
    else:
        language = {".py": "python", ".xml": "xml", ".cff": "yaml"}.get(file.suffix, "text")
        shown = f'~~~~~~{language} linenums="1"\n{file.read_text()}\n~~~~~~'
    return f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n\n# {path}\n\n{shown}\n"


# -- pages -----------------------------------------------------------------------------------------------
@functools.cache  # once per `mkdocs serve`
def shift_data():
    return make_front_page.data()


EXPLORER_PAGES = {
    "shift": "the shift of the half-cheetah",
    "context": "what the point robot's encoder reads",
    "reward": "its decoded rewards",
    "joystick": "its latent joystick",
    "gallery": "its rollouts",
}


@functools.cache
def explorer_pages():
    """Return explorers of shipped agents as pages, by name."""
    from smac_lab import widgets
    from smac_lab.runs.snapshots import example

    robot, cheetah = example("point-robot"), example("cheetah-vel")
    writers = {
        "shift": widgets.ShiftExplorer(cheetah).to_html,
        "context": widgets.ContextExplorer(robot).to_html,
        "reward": widgets.RewardExplorer(robot).to_html,
        "joystick": widgets.LatentJoystick(robot).to_html,
        "gallery": widgets.RolloutGallery(robot).to_html,
    }
    over = {"shift": {"iteration": cheetah.iterations, "share": [0.0, 0.5, 1.0], "task": [0, 5, 10, 15]}}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: write(f"{folder}/{name}.html", over.get(name)) for name, write in writers.items()}
        return {name: file.read_text() for name, file in files.items()}


def front_page():
    """Return the README with the explorer in place of `demo.png`."""
    readme = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text())
    explorer = (
        f"{make_front_page.WORDS}\n\n{PLACE}\n\n"
        'These are the agents of one seed that are shipped as `example("point-robot")`, and their networks run in '
        "this page. Mean returns are those of `measure_shift`. Paths take z at the posterior's mean; *decoded* is the "
        "sum of the reward decoder's outputs along the path. To send the explorer, take "
        "[the same in one file](shift-explorer.html); to open it on a run of yours, `smac-lab explore RUN`.\n"
    )
    text, replaced = re.subn(r"^!\[.*\]\(demo\.png\)$", lambda _: explorer, readme, count=1, flags=re.MULTILINE)
    assert replaced, "the README has no picture that the explorer could take the place of"
    return f"---\nhide: [toc]\n---\n\n{text}"


def reference():
    """List the public names of `smac_lab` by concept."""
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
