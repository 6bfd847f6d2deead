"""Headless rendering: pictures of bodies, films of a policy at work, video files and notebook players."""

from __future__ import annotations

import copy
import functools
import importlib
import math
import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smac_lab.engine.rollout import Episodes, Policy, rollout
from smac_lab.tasks.family import Array, DynamicsFamily, MujocoFamily, TaskFamily, Tasks

Frames = NDArray[np.uint8]


class BodyRenderer:
    """Draws a MuJoCo body without a window, from a camera that follows it or stands still.

    Shadows and reflections are off, which makes software rendering five times faster. `MUJOCO_GL` (egl, osmesa,
    glfw) chooses the OpenGL backend; where it is not set, the first that works is taken.

    Args:
        model: compiled `mujoco.MjModel`; its first body is followed unless `lookat` is given.
        width, height: size of the pictures, pixels.
        distance: of the camera from the body, m.
        azimuth: direction in which the camera looks, degrees; at 90 the x axis points to the right.
        elevation: of the camera's line of sight, degrees; negative looks down.
        lookat: point that the camera looks at, m; None: the body.

    Raises:
        RuntimeError: no OpenGL backend works here; the message says how to get one.
    """

    def __init__(
        self,
        model: Any,
        width: int = 320,
        height: int = 240,
        *,
        distance: float = 4.0,
        azimuth: float = 90.0,
        elevation: float = -20.0,
        lookat: tuple[float, float, float] | None = None,
    ):
        import mujoco

        self._context: Any = _context_class()(width, height)
        self._context.make_current()
        self._model = copy.copy(model)  # its picture size is ours to change
        size = self._model.vis.global_
        size.offwidth, size.offheight = max(size.offwidth, width), max(size.offheight, height)
        self._drawing: Any = mujoco.MjrContext(self._model, int(mujoco.mjtFontScale.mjFONTSCALE_100))
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._drawing)
        self._scene = mujoco.MjvScene(self._model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._option = mujoco.MjvOption()
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._camera = mujoco.MjvCamera()
        self._camera.distance, self._camera.azimuth, self._camera.elevation = distance, azimuth, elevation
        self._lookat = lookat

    def draw(self, data: Any) -> Frames:
        """Picture of the state in `data` (`mujoco.MjData`), `(height, width, 3)`; derived fields are recomputed."""
        import mujoco

        if self._drawing is None:
            raise RuntimeError("this renderer has been closed")
        for compute in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            compute(self._model, data)
        # The height of the camera stays, so that hopping is seen as hopping.
        self._camera.lookat[:] = self._lookat or (*data.xpos[1, :2], 0.75 * self._model.body_pos[1, 2])
        everything = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, everything, self._scene)
        self._context.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._drawing)
        picture = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rectangle, self._drawing)
        return picture[::-1].copy()  # OpenGL counts rows from below

    def close(self) -> None:
        """Free what the graphics driver holds; closing twice is fine."""
        if self._drawing is not None:
            self._context.make_current()
            self._drawing.free()
            self._context.free()
            self._drawing = self._context = None

    def __enter__(self) -> BodyRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Film(NamedTuple):
    """A filmed rollout."""

    frames: Frames  # (time, height, width, 3)
    fps: float  # frames a second at which it plays in real time
    episodes: Episodes  # the rollout itself, (task, time, ...)


def render_episodes(
    policy: Policy,
    family: TaskFamily,
    tasks: Tasks,
    *,
    seed: int | list[int | None] = 0,
    width: int = 320,
    height: int = 240,
    every: int = 1,
    steps: int | None = None,
) -> Film:
    """Roll `policy` out on `tasks` side by side and film it.

    The rollout is the one that `rollout(policy, family.batch_env(tasks), seed)` makes, so what was measured
    there can be looked at here.

    Args:
        policy: observations `(task, obs_dim)` to actions `(task, action_dim)`, such as `agent.policy(...)`.
        family, tasks: what to act in; several tasks are tiled into one picture, row by row.
        seed: of the resets.
        width, height: size of one task's tile, pixels.
        every: control steps a frame.
        steps: control steps that are filmed; default all of the horizon.

    Raises:
        RuntimeError: no OpenGL backend works here (bodies only; point robots need none).
    """
    env = family.batch_env(tasks)
    columns = math.ceil(math.sqrt(len(tasks)))
    renderer = BodyRenderer(family.model, width, height, **family.camera) if isinstance(family, MujocoFamily) else None
    frames: list[Frames] = []
    calls = 0

    def draw(simulation: int) -> Frames:
        if renderer is not None:
            return renderer.draw(env.simulation.engine.batch.get_data(simulation))
        assert isinstance(family, DynamicsFamily)
        state = {name: value[simulation : simulation + 1] for name, value in vars(env.simulation.state).items()}
        return family.draw(SimpleNamespace(**state), tasks.values[simulation], width, height)

    def filmed(observations: Array) -> NDArray[np.floating]:
        nonlocal calls
        if calls % every == 0 and (steps is None or calls < steps):
            frames.append(_tile([draw(i) for i in range(len(tasks))], columns))
        calls += 1
        return policy(observations)

    try:
        episodes = rollout(filmed, env, seed)
    finally:
        if renderer is not None:
            renderer.close()
    return Film(np.stack(frames), 1 / (family.control_dt * every), episodes)


def save_video(path: str | Path, frames: Frames, fps: float) -> Path:
    """Write frames `(time, height, width, 3)` as .mp4 (H.264) or .gif, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "gif" if path.suffix == ".gif" else "h264"
    _mediapy().write_video(path, _even(frames), fps=fps, codec=codec)
    return path


def data_url(frames: Frames, fps: float) -> str:
    """Frames `(time, height, width, 3)` as an address that holds the whole .mp4."""
    import base64

    file = _mediapy().compress_video(_even(frames), fps=fps, codec="h264")
    return f"data:video/mp4;base64,{base64.b64encode(file).decode()}"


def require_renderer() -> None:
    """Raise RuntimeError, which says how to get one, unless some OpenGL backend works here."""
    _context_class()


def video_html(frames: Frames, fps: float, title: str | None = None) -> str:
    """Frames `(time, height, width, 3)` as an HTML player that needs no other file."""
    return _mediapy().show_video(_even(frames), fps=fps, title=title, return_html=True)


def _tile(pictures: list[Frames], columns: int) -> Frames:
    """Pictures side by side, row by row, with grey lines between them."""
    pictures = pictures + [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    for picture in pictures if len(pictures) > 1 else []:
        picture[-1] = picture[:, -1] = 128
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)


def _even(frames: Frames) -> Frames:
    """Without the last row or column where their number is odd, which H.264 cannot encode."""
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def _mediapy() -> Any:
    try:
        import imageio_ffmpeg
        import mediapy
    except ImportError as error:
        raise ImportError(f'videos need mediapy and imageio-ffmpeg: pip install "smac-lab[lab]" ({error})') from error
    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    return mediapy


FAILED: dict[str, str] = {}  # what was wrong with OpenGL backends; some end the process when they are asked again


@functools.cache
def _context_class() -> Any:
    """The OpenGL context class of the first backend that works here; MUJOCO_GL names it afterwards.

    MuJoCo's Python side reads MUJOCO_GL when it is imported, and takes a window where it is not set; its C side reads
    it whenever it starts to draw. Taking the context class directly works after the import, too.
    """
    import mujoco

    problems, chosen, opengl = [], os.environ.get("MUJOCO_GL"), os.environ.get("PYOPENGL_PLATFORM")
    for backend in _backends():
        if backend in FAILED:
            problems.append(f"{backend}: {FAILED[backend]}")
            continue
        os.environ["MUJOCO_GL"] = backend
        try:
            context_class = importlib.import_module(f"mujoco.{backend}").GLContext
            context = context_class(16, 16)
            context.make_current()
            mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 100).free()
            context.free()
        except Exception as error:  # a missing library shows as ImportError, AttributeError, GLError, FatalError, ...
            FAILED[backend] = str(error)
            problems.append(f"{backend}: {error}")
            _restore("MUJOCO_GL", chosen)
            _restore("PYOPENGL_PLATFORM", opengl)
            for name in list(sys.modules):  # PyOpenGL settles on a platform when it is first imported
                if name.split(".")[0] == "OpenGL" or name.startswith(("mujoco.egl", "mujoco.osmesa")):
                    del sys.modules[name]
        else:
            return context_class
    raise RuntimeError(
        "no OpenGL renderer works here. On Debian or Ubuntu `apt-get install libegl1 libopengl0 libgl1-mesa-dri` or "
        "`apt-get install libosmesa6` gives one that needs no display; MUJOCO_GL=egl, osmesa or glfw chooses one. "
        f"Tried: {'; '.join(problems) or f'nothing, as MUJOCO_GL={chosen}'}"
    )


def _backends() -> list[str]:
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen in ("egl", "osmesa", "glfw", "cgl"):
        return [chosen]
    if chosen in ("disable", "disabled", "off", "false", "0"):
        return []
    if platform.system() == "Darwin":
        return ["cgl", "glfw"]
    if platform.system() != "Linux":
        return ["glfw"]
    window = ["glfw"] if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else []
    return ["egl", "osmesa", *window]


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
