"""JupyterLab in headless Chromium, for tests of notebooks and explorers (playwright's sync API).

    with JupyterLab(folder) as lab, Browser() as browser, browser.page() as page:
        page.open_notebook(lab, "notebook.ipynb")
        page.run_all()
        assert page.problems() == []

The server runs on 127.0.0.1 from a temporary folder. The user's settings of JupyterLab have no effect.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import psutil

DARK, LIGHT = "JupyterLab Dark", "JupyterLab Light"
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/apputils-extension:sessionDialogs": {"skipKernelRestartDialog": True},
    # Saving would show dialogs about files that changed on disk.
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False, "confirmClosingDocument": False},
    # The page also contains cells out of sight.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
ARGUMENTS = [
    "--disable-gpu",  # software rendering
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # large pages crash in a container's 64 MB
]


# -- what is needed ------------------------------------------------------------------------------------------
def chromium_path() -> str | None:
    found = (shutil.which(name) for name in ("chromium", "google-chrome", "chromium-browser"))
    return next(filter(None, found), None)


def missing() -> str | None:
    """Return why browser tests must be skipped, or None."""
    if chromium_path() is None:
        return "needs chromium or google-chrome on the PATH"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return 'needs playwright: pip install -e ".[dev]"'
    return None


# -- the server ----------------------------------------------------------------------------------------------
class JupyterLab:
    """A JupyterLab server over `root`, as a context manager.

    Args:
        root: folder to serve; each notebook runs in its folder.
        env: further environment variables.
        theme: `LIGHT` or `DARK`.
        settings: plugin to values; they override `SETTINGS`.
    """

    def __init__(
        self,
        root: Path,
        *,
        env: Mapping[str, str] | None = None,
        theme: str = LIGHT,
        settings: Mapping[str, dict[str, Any]] | None = None,
    ):
        self.root = Path(root).resolve()
        self.token = secrets.token_hex(16)
        self._env = dict(env or {})
        self._settings = {**SETTINGS, "@jupyterlab/apputils-extension:themes": {"theme": theme}, **(settings or {})}

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="smac-lab-jupyter-", ignore_cleanup_errors=True)
        home = Path(self._home.name)
        names = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        for name in names.values():
            (home / name).mkdir()
        overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
        overrides.parent.mkdir()
        overrides.write_text(json.dumps(self._settings))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
        command += [f"--ServerApp.root_dir={self.root}"]
        # Tests read the application's state; the server must not ask PyPI for extensions.
        command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
        env = os.environ | {name: str(home / folder) for name, folder in names.items()}
        env |= {"JUPYTER_TOKEN": self.token, "OMP_NUM_THREADS": "1", **self._env}
        self._log = home / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=env, cwd=self.root, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self, timeout: float = 240.0) -> None:
        until = time.monotonic() + timeout
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"JupyterLab ended at once:\n{self.log()[-3000:]}")
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.request("/api/status")
                return
            if time.monotonic() > until:
                raise TimeoutError(f"JupyterLab did not answer within {timeout:.0f} s:\n{self.log()[-3000:]}")
            time.sleep(0.2)

    def request(self, path: str, method: str = "GET") -> Any:
        """Return the answer of the server's REST interface, such as to `/api/kernels`."""
        asked = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"token {self.token}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __exit__(self, *_: object) -> None:
        processes = [self._process]
        with contextlib.suppress(psutil.Error):
            processes = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        for process in [*processes, self._process]:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        self._process.wait(15)
        self._home.cleanup()


# -- the browser ---------------------------------------------------------------------------------------------
class Browser:
    """Headless Chromium, as a context manager; each `page()` has a fresh profile.

    While it is open, asyncio finds a running loop, so that `asyncio.run` fails.
    """

    def __enter__(self) -> Self:
        from playwright.sync_api import sync_playwright

        with contextlib.ExitStack() as stack:
            driver = stack.enter_context(sync_playwright())
            self._browser = driver.chromium.launch(executable_path=chromium_path(), headless=True, args=ARGUMENTS)
            stack.callback(self._browser.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def page(self, width: int = 1280, height: int = 1000) -> Iterator[Page]:
        context = self._browser.new_context(viewport={"width": width, "height": height})
        page = Page(context.new_page())
        try:
            yield page
        finally:
            page.shut_down()
            context.close()


class Cell(NamedTuple):
    number: int  # among code cells, from 1
    source: str
    execution_count: int | None
    outputs: list[dict[str, Any]]  # of pictures and figures only the MIME type

    @property
    def text(self) -> str:
        """Printed output and results."""
        return "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "") + "\n" for output in self.outputs
        )

    @property
    def mime_types(self) -> set[str]:
        return {kind for output in self.outputs for kind in output.get("data", {})}

    @property
    def error(self) -> str | None:
        """Name and message of the exception."""
        return next((f"{o['ename']}: {o['evalue']}" for o in self.outputs if "ename" in o), None)


# Code cells, without the megabytes of pictures and films.
READ_CELLS = """() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells
    .filter(cell => cell.cell_type === 'code')
    .map(cell => ({
        source: cell.getSource(),
        execution_count: cell.execution_count,
        outputs: cell.getOutputs().map(output => {
            const said = {...output}, whole = text => Array.isArray(text) ? text.join('') : text;
            if (said.text) said.text = whole(said.text);
            if (said.data) said.data = Object.fromEntries(Object.entries(said.data).map(([kind, value]) =>
                [kind, kind.startsWith('text/') ? whole(value).slice(0, 100000) : '']));
            return said;
        }),
    }))"""
# `run-all-cells` ends at an error, or when the kernel has answered every cell.
START_RUN = """() => {
    window.smacRun = 'running';
    jupyterapp.commands.execute('notebook:run-all-cells').then(
        () => { window.smacRun = 'done'; }, reason => { window.smacRun = 'failed: ' + reason; });
}"""
# JupyterLab shows exceptions of widgets' callbacks only in its log.
WATCH_CALLBACKS = """() => {
    window.smacCallbackErrors = [];
    jupyterapp.shell.currentWidget.context.sessionContext.iopubMessage.connect((_, message) => {
        if (message.header.msg_type === 'error' && message.parent_header.msg_type !== 'execute_request')
            window.smacCallbackErrors.push(message.content.ename + ': ' + message.content.evalue + '\\n'
                + message.content.traceback.join('\\n').replace(/\\x1b\\[[0-9;]*m/g, ''));
    });
}"""
DRAWN = """() =>
    ![...document.querySelectorAll('.jp-OutputArea-output')].some(shown => /^Loading widget/.test(shown.innerText))
    && [...document.querySelectorAll('.js-plotly-plot')].every(plot => plot.querySelector('.main-svg'))"""
# anywidget logs this when a widget takes over 2 s to load, as plotly's does on a busy machine, and shows it later. A
# widget that cannot be loaded has another message.
SLOW_TO_LOAD = "[anywidget] Failed to initialize model"
OPENED = "() => window.jupyterapp?.shell?.currentWidget?.content?.model"
KERNEL = "jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel"


class Page:
    """A page in which a notebook is run and inspected.

    Attributes:
        page: playwright's page.
        console_errors: errors in the console, and exceptions that no script caught.
    """

    def __init__(self, page: Any):
        self.page = page
        self.console_errors: list[str] = []
        self._lab: JupyterLab | None = None
        page.set_default_timeout(60_000)  # other work may keep the cores busy
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(f"{error.name}: {error.message}\n{error.stack or ''}"))

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            at = message.location.get("url", "")
            self._note(f"{message.text} ({at})" if at else message.text)

    def _note(self, error: str) -> None:
        if SLOW_TO_LOAD not in error:
            self.console_errors.append(error)

    # -- notebooks -------------------------------------------------------------------------------------------
    def open_notebook(self, lab: JupyterLab, path: str, timeout: float = 120.0) -> None:
        """Open the notebook at `path` under the server's root, and wait until its kernel is idle."""
        self._lab = lab
        # A new workspace, in which no earlier notebook opens.
        self.page.goto(f"{lab.url}/lab/workspaces/{secrets.token_hex(4)}/tree/{quote(path)}?reset&token={lab.token}")
        self.page.wait_for_function(OPENED, timeout=timeout * 1e3)
        self.page.evaluate(
            "async () => { await jupyterapp.restored; const widget = jupyterapp.shell.currentWidget;"
            " await widget.context.ready; await widget.revealed; await widget.sessionContext.ready;"
            " jupyterapp.shell.collapseLeft(); }"
        )
        self.page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=timeout * 1e3)
        self.page.evaluate(WATCH_CALLBACKS)

    def run_all(self, timeout: float = 300.0) -> list[Cell]:
        """Run all cells, and wait until the kernel is idle and all outputs have been drawn.

        Returns:
            The code cells; those below an error have not run.

        Raises:
            TimeoutError: the run took longer than `timeout` seconds; the message names the running cell.
            RuntimeError: the kernel died, JupyterLab failed, or a cell was skipped without an error.
        """
        self.page.evaluate(START_RUN)
        until = time.monotonic() + timeout
        while True:
            state, status = self.page.evaluate(f"() => [window.smacRun, {KERNEL}?.status ?? 'dead']")
            if status in ("dead", "autorestarting", "terminating"):
                raise RuntimeError(f"the kernel died in {self._running()}")
            if state.startswith("failed"):
                raise RuntimeError(f"JupyterLab could not run the notebook: {state}")
            if state == "done" and status == "idle":
                break
            if time.monotonic() > until:
                raise TimeoutError(f"not done after {timeout:.0f} s, in {self._running()}")
            self.page.wait_for_timeout(200)
        self.settle()
        cells = self.cells()
        if not any(cell.error for cell in cells):
            left = [cell.number for cell in cells if cell.source.strip() and cell.execution_count is None]
            if left:
                raise RuntimeError(f"code cells {left} were not run, although no cell failed")
        return cells

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until no widget is loading and every plotly figure has been drawn."""
        self.page.wait_for_function(DRAWN, timeout=timeout * 1e3)
        self.page.wait_for_timeout(500)  # plotly completes its layout in timers

    def cells(self) -> list[Cell]:
        return [Cell(number, **cell) for number, cell in enumerate(self.page.evaluate(READ_CELLS), start=1)]

    def _running(self) -> str:
        """Describe the running code cell."""
        prompts = self.page.locator(".jp-CodeCell .jp-InputArea-prompt").all_inner_texts()
        number = next((i for i, prompt in enumerate(prompts, start=1) if "*" in prompt), None)
        if number is None:
            return "no cell"
        return f"code cell {number}:\n{self.cells()[number - 1].source}"

    def problems(self) -> list[str]:
        """List errors of cells, of callbacks and in the console, and outputs that are not shown."""
        found = [f"code cell {cell.number}: {cell.error}" for cell in self.cells() if cell.error]
        found += [f"callback: {error}" for error in self.page.evaluate("() => smacCallbackErrors")]
        found += [f"console: {error}" for error in self.console_errors]
        shown = self.page.locator(".jp-OutputArea-output").all_inner_texts()
        broken = re.compile(r"Error displaying widget|Failed to load model class|Javascript Error|\[anywidget\].*rror")
        return found + [f"output: {text[:500]}" for text in shown if broken.search(text)]

    # -- looks -----------------------------------------------------------------------------------------------
    def theme(self, name: str) -> None:
        self.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        self.page.wait_for_selector(f"body[data-jp-theme-light='{str(name == LIGHT).lower()}']", state="attached")

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """Write a picture of the page, or with `whole` of the notebook."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not whole:
            self.page.screenshot(path=path)
            return path
        size = self.page.viewport_size
        # A page as high as the notebook shows all of it.
        height = self.page.evaluate("() => jupyterapp.shell.currentWidget.content.outerNode?.scrollHeight ?? 0")
        self.page.set_viewport_size({"width": size["width"], "height": min(max(size["height"], height + 150), 16_000)})
        try:
            self.page.evaluate("() => { jupyterapp.shell.currentWidget.content.outerNode.scrollTop = 0; }")
            self.settle()
            self.page.screenshot(path=path)
        finally:
            self.page.set_viewport_size(size)
        return path

    # -- the end ---------------------------------------------------------------------------------------------
    def shut_down(self) -> None:
        """End all kernels of the server that this page has used."""
        if self._lab is not None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                for session in self._lab.request("/api/sessions"):
                    self._lab.request(f"/api/sessions/{session['id']}", "DELETE")
