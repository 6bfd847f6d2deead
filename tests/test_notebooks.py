"""The tutorial notebooks: their form, their exercises, and a run of each in JupyterLab with the solutions in place."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from urllib.parse import unquote

import browser
import nbformat
import pytest
import run_notebooks

from smac_lab.widgets import exercise

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
SMALL = {"SMAC_LAB_PRESET": "smoke", "OMP_NUM_THREADS": "1", "PLOTLY_RENDERER": "plotly_mimetype"}
every_notebook = pytest.mark.parametrize("path", sorted(FOLDER.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def exercises(notebook):
    """Number of an exercise to the cell that a reader fills in."""
    found = [(re.match(r"# Exercise (\d+): \S", cell.source), cell) for cell in code_cells(notebook)]
    numbered = [(int(match[1]), cell) for match, cell in found if match]
    assert len(dict(numbered)) == len(numbered), "an exercise stands there twice"
    return dict(numbered)


def solutions(path):
    """Number of an exercise to the code that solves it, from notebooks/solutions/."""
    text = (FOLDER / "solutions" / f"{path.stem}.py").read_text()
    _, *blocks = re.split(r"^# %% Exercise (\d+).*\n", text, flags=re.M)
    numbers = [int(number) for number in blocks[::2]]
    assert len(set(numbers)) == len(numbers), "a solution stands there twice"
    return dict(zip(numbers, (block.strip() for block in blocks[1::2]), strict=True))


def solved(path):
    """The notebook as a reader leaves it who has done all exercises; without outputs."""
    notebook, answers = read(path), solutions(path)
    for number, cell in exercises(notebook).items():
        cell.source = answers[number]
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def calls_check(source):
    """Whether the cell checks an answer. (IPython's own commands are no Python.)"""
    tree = ast.parse(re.sub(r"^\s*[%!].*$", "pass", source, flags=re.M))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(isinstance(called, ast.Name) and called.id == "check" for called in calls)


# -- form ----------------------------------------------------------------------------------------------------
@every_notebook
def test_form(path):
    notebook, measured = read(path), run_notebooks.measure(path)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert measured.size < 2_000_000
    assert 15 <= measured.code_cells <= 30
    assert measured.median <= 8
    assert measured.longest <= 40


@every_notebook
def test_stored_outputs_are_of_a_run_without_errors(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert [output.evalue for output in outputs if output.output_type == "error"] == []
    kinds = [set(output.get("data", {})) for output in outputs]
    assert any("image/png" in shown for shown in kinds)
    for shown in kinds:
        assert run_notebooks.WIDGET not in shown, "a widget without its kernel shows as an error"
        if "application/vnd.plotly.v1+json" in shown:
            assert "image/png" in shown, "a figure without a picture: GitHub shows nothing"


@every_notebook
def test_links(path):
    """Relative links lead to files, and one that names a function to the file that defines it."""
    text = "\n".join(cell.source for cell in text_cells(read(path)))
    wrong = []
    for words, address in re.findall(r"\[([^\]]*)\]\(([^)\s]+)[^)]*\)", text):
        if re.match(r"[a-z]+:|#", address):
            continue
        file = path.parent / unquote(address.split("#")[0])
        if not file.exists() or not file.resolve().is_relative_to(ROOT):
            wrong.append(f"[{words}]({address}): no such file")
        named = re.fullmatch(r"`(?:\w+\.)+(\w+)`", words)
        if named and file.is_file() and file.suffix == ".py" and named[1] not in ("py", file.stem):
            defines = rf"^\s*(?:def|class)\s+{named[1]}\b|^\s*{named[1]}\s*[:=]"
            if not re.search(defines, file.read_text(), re.M):
                wrong.append(f"[{words}]({address}): not defined there")
    assert wrong == []


@every_notebook
def test_no_path_of_one_machine(path):
    notebook = read(path)
    texts = [cell.source for cell in notebook.cells]
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        shown = output.get("data", {})
        texts += [output.get("text", ""), *(value for kind, value in shown.items() if kind.startswith("text/"))]
    for text in texts:
        text = re.sub(r"base64,[\w+/=]+", "", text)
        assert not re.search(r"(?<![\w.])/(tmp|work|root|home|Users|mnt)\b", text), text[:500]


# -- exercises -----------------------------------------------------------------------------------------------
@every_notebook
def test_every_exercise_has_a_solution_and_a_check(path):
    notebook, answers = read(path), solutions(path)
    asked = exercises(notebook)
    assert list(asked) == list(range(1, len(asked) + 1))
    assert 2 <= len(asked) <= 3
    assert list(answers) == list(asked)
    for number, cell in asked.items():
        assert answers[number].splitlines()[0] == cell.source.splitlines()[0]
        assert "None" in cell.source, "an exercise is left open"
    # Each exercise is followed by a check before the next one.
    sources = [cell.source for cell in code_cells(notebook)]
    marks = ["E" if re.match("# Exercise", source) else "c" if calls_check(source) else "" for source in sources]
    assert re.fullmatch(r"(Ec+)+", "".join(marks)), marks


def test_exercise_not_answered(capsys):
    exercise.check(None, 1.0)
    exercise.check((1.0, None), (1.0, 2.0))
    assert capsys.readouterr().out == "… not answered yet\n" * 2
    exercise.check(1.0, 1.0)
    exercise.check(2.0, 1.0, hint="Look again.")
    assert capsys.readouterr().out == "✓ right\n✗ not yet: got 2.0. Look again.\n"


# -- in JupyterLab -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    if reason := browser.missing():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    if (ROOT / "docs").exists():
        (root / "docs").symlink_to(ROOT / "docs")  # pictures that the text shows
    with browser.JupyterLab(root, env=SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(lab):
    with browser.Browser() as running:
        yield running


@pytest.mark.browser
@every_notebook
def test_solved_notebook_runs_in_jupyterlab(path, lab, chromium, tmp_path):
    nbformat.write(solved(path), lab.root / "notebooks" / path.name)
    screenshots = Path(os.environ.get("SMAC_LAB_SCREENSHOTS", tmp_path))
    with chromium.page() as page:
        page.open_notebook(lab, f"notebooks/{path.name}")
        cells = page.run_all(timeout=600)
        page.screenshot(screenshots / f"{path.stem}.png", whole=True)
        assert page.problems() == []
    checks = [cell for cell in cells if calls_check(cell.source)]
    assert checks
    for cell in checks:
        verdicts = re.findall(r"^(✓ right|✗ not yet.*|… not answered yet)$", cell.text, re.M)
        assert set(verdicts) == {"✓ right"}, f"code cell {cell.number}: {cell.text}"


@pytest.mark.browser
def test_what_goes_wrong_in_a_notebook_is_found(lab, chromium):
    """The test above can fail: at an error in a cell, in a callback, in the page's scripts, and at a lost kernel."""
    sources = [
        "import ipywidgets, os\nbutton = ipywidgets.Button(description='press')\n"
        "button.on_click(lambda _: 1 / 0)\nbutton.add_class('press')",
        "ipywidgets.HTML('<img src=\"x\" onerror=\"console.error(\\'from a script\\')\">')",
        "os.environ['SMAC_LAB_PRESET'], os.getcwd()",
        "undefined_name",
        "'not reached'",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata.kernelspec = run_notebooks.KERNEL
    nbformat.write(notebook, lab.root / "notebooks" / "wrong.ipynb")
    with chromium.page() as page:
        page.open_notebook(lab, "notebooks/wrong.ipynb")
        cells = page.run_all()
        assert cells[2].text.strip() == str(("smoke", str(lab.root / "notebooks")))
        assert cells[3].error == "NameError: name 'undefined_name' is not defined"
        assert cells[4].execution_count is None
        page.page.locator(".press").click()
        page.page.wait_for_function("() => window.smacCallbackErrors.length > 0")
        problems = "\n".join(page.problems())
        for words in ("code cell 4: NameError", "callback: ZeroDivisionError", "from a script"):
            assert words in problems
        page.theme(browser.DARK)
    assert lab.request("/api/sessions") == []
