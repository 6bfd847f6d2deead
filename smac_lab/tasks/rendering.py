"""Off-screen pictures of MuJoCo bodies."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import platform
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


class BodyRenderer:
    """Off-screen renderer of a MuJoCo body.

    Shadows and reflections are off, which makes software rendering five times faster. `MUJOCO_GL` (egl, osmesa, glfw)
    chooses the OpenGL backend; default: the first that works.

    Args:
        model: `mujoco.MjModel`; the camera follows its first body unless `lookat` is given.
        width, height: size of the pictures, pixels.
        distance: of the camera from the body, m.
        azimuth: of the camera, degrees; at 90 the x axis points to the right.
        elevation: of the camera, degrees; negative looks down.
        lookat: point that the camera looks at, m; None: the body.

    Raises:
        RuntimeError: no OpenGL backend works.
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
        self._model = copy.copy(model)  # its picture size is changed
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

    def render(self, data: Any) -> Frames:
        """Draw the state in a `mujoco.MjData`, `(height, width, 3)`."""
        import mujoco

        if self._drawing is None:
            raise RuntimeError("this renderer has been closed")
        for compute in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            compute(self._model, data)
        # The height is fixed, so that hopping is visible.
        self._camera.lookat[:] = self._lookat or (*data.xpos[1, :2], 0.75 * self._model.body_pos[1, 2])
        everything = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, everything, self._scene)
        self._context.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._drawing)
        picture = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rectangle, self._drawing)
        return picture[::-1].copy()  # OpenGL counts rows from below

    def close(self) -> None:
        """Free the graphics driver's resources; closing twice is fine."""
        if self._drawing is not None:
            self._context.make_current()
            self._drawing.free()
            self._context.free()
            self._drawing = self._context = None

    def __enter__(self) -> BodyRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_renderer() -> None:
    """Raise RuntimeError, with installation advice, unless some OpenGL backend works."""
    _context_class()


FAILED: dict[str, str] = {}  # by backend; some end the process when tried again


@functools.cache
def _context_class() -> Any:
    """Return the context class of the first backend that works, and set MUJOCO_GL.

    MuJoCo's Python part reads MUJOCO_GL only at import. Importing the context class directly works later too.
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
        except Exception as error:
            FAILED[backend] = str(error)
            problems.append(f"{backend}: {error}")
            _restore("MUJOCO_GL", chosen)
            _restore("PYOPENGL_PLATFORM", opengl)
            for name in list(sys.modules):  # PyOpenGL chooses a platform at its first import
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
