"""Run the notebooks from a clean kernel and store their outputs; called by `make notebooks`.

    python scripts/run_notebooks.py [name ...] [--preset cpu | smoke] [--table]

Names may be shortened: `03` is `notebooks/03_context_encoder.ipynb`. A notebook is written only if all cells ran
without an error. `--preset smoke` only shows that they run, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
TIMEOUT = 600  # s, of one cell
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class Measure(NamedTuple):
    code_cells: int
    median: float  # lines of a code cell
    longest: int  # lines
    prose: float  # words per line of code
    size: int  # bytes


class CellError(Exception):
    """A cell failed; the message names it."""


def measure(path: Path) -> Measure:
    """Measure a notebook's file. Blank lines count in a cell's length, but not in words per line."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source.strip() for cell in notebook.cells if cell.cell_type == "code"]
    lines = [len(source.splitlines()) for source in code]
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    written = sum(bool(line.strip()) for source in code for line in source.splitlines())
    return Measure(
        len(code), statistics.median(lines or [0]), max(lines, default=0), words / max(written, 1), path.stat().st_size
    )


def run(path: Path, preset: str) -> Any:
    """Run a notebook in a new kernel and return it with its outputs.

    Raises:
        CellError: a cell failed, took too long, or ended the kernel.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    begun: list[int] = []
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # keep only a progress bar's last state
        extra_arguments=["--log-level=ERROR"],  # no warnings about the connection
        on_cell_execute=lambda cell, cell_index: begun.append(cell_index),
    )
    # Figures are stored for JupyterLab, and as pictures for pages without scripts.
    env = os.environ | {"PLOTLY_RENDERER": "plotly_mimetype+png", "SMAC_LAB_PRESET": preset}
    try:
        client.execute(env=env)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        at = begun[-1] if begun else 0
        number = sum(cell.cell_type == "code" for cell in notebook.cells[: at + 1])
        raise CellError(f"{path.name}, code cell {number}: {_why(error, notebook.cells[at])}") from None
    return tidy(notebook)


def _why(error: Exception, cell: Any) -> str:
    for output in cell.outputs:
        if output.output_type == "error":
            trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
            return f"{output.ename}: {output.evalue}\n\n{trace}"
    source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    return f"{f'it ran longer than {TIMEOUT} s' if isinstance(error, TimeoutError) else 'the kernel died'}\n\n{source}"


def tidy(notebook: Any) -> Any:
    """Remove, in place, metadata and outputs that are useless or differ between runs.

    Widgets are removed, because without the kernel they are shown as an error. The picture after an explorer remains.
    """
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        for name in ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                output.pop("transient", None)
    return notebook


def write(path: Path, notebook: Any) -> None:
    """Replace a notebook, completely or not at all."""
    nbformat.validate(notebook)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".partial", delete=False) as file:
        try:
            nbformat.write(notebook, file)
            file.close()
            os.chmod(file.name, path.stat().st_mode)
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise


def chosen(names: list[str]) -> list[Path]:
    """Find notebooks by beginnings of names; all without names."""
    known = sorted(FOLDER.glob("[0-9]*.ipynb"))
    found = []
    for name in names:
        begins = Path(name).name.removesuffix(".ipynb")
        matches = [path for path in known if path.stem.startswith(begins)]
        if len(matches) != 1:
            listed = ", ".join(path.stem for path in known) or "none"
            raise SystemExit(f"no single notebook is called {name}; there are {listed}")
        found += matches
    return found or known


HEAD = f"{'notebook':30} {'seconds':>8} {'cells':>6} {'median':>7} {'longest':>8} {'words/line':>11} {'kB':>6}"


def row(path: Path, seconds: float | None) -> str:
    m, took = measure(path), "-" if seconds is None else f"{seconds:.0f}"
    return f"{path.stem:30} {took:>8} {m.code_cells:6} {m.median:7g} {m.longest:8} {m.prose:11.1f} {m.size / 1e3:6.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks; default all")
    parser.add_argument("--preset", choices=("cpu", "smoke"), default="cpu", help="smoke: small and quick, not written")
    parser.add_argument("--table", action="store_true", help="print the table without running anything")
    arguments = parser.parse_args()
    paths = chosen(arguments.names)
    print(HEAD)
    for path in paths:
        seconds = None
        if not arguments.table:
            began = time.monotonic()
            try:
                notebook = run(path, arguments.preset)
            except CellError as error:
                print(f"\n{error}\n\n{path.name} was not written.", file=sys.stderr)
                return 1
            seconds = time.monotonic() - began
            if arguments.preset == "cpu":
                write(path, notebook)
        print(row(path, seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
