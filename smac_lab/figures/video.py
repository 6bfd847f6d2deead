"""Films of rollouts, video files and notebook players, without a screen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smac_lab.engine.rollout import Episodes, Policy, rollout
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.rendering import Frames
from smac_lab.tasks.spec import Array, Tasks


class Film(NamedTuple):
    """A filmed rollout."""

    frames: Frames  # (time, height, width, 3)
    fps: float  # for playback in real time
    episodes: Episodes  # (task, time, ...)


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
    """Film a rollout of `policy` on `tasks` side by side.

    The rollout equals `rollout(policy, family.batch_env(tasks), seed)`.

    Args:
        policy: observations `(task, obs_dim)` to actions `(task, action_dim)`, such as `agent.policy(...)`.
        family, tasks: the simulated tasks, tiled row by row.
        seed: of the resets.
        width, height: of each task's tile in pixels.
        every: control steps per frame.
        steps: control steps to film; default the horizon.

    Raises:
        RuntimeError: no OpenGL backend works (bodies only; point robots need none).
    """
    env = family.batch_env(tasks)
    columns = math.ceil(math.sqrt(len(tasks)))
    renderer = family.make_renderer(width, height)
    frames: list[Frames] = []
    calls = 0

    def filmed(observations: Array) -> NDArray[np.floating]:
        nonlocal calls
        if calls % every == 0 and (steps is None or calls < steps):
            frames.append(_tile([renderer.render(env.simulation, i) for i in range(len(tasks))], columns))
        calls += 1
        return policy(observations)

    try:
        episodes = rollout(filmed, env, seed)
    finally:
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
    """Encode frames `(time, height, width, 3)` as a URL that contains an .mp4."""
    import base64

    file = _mediapy().compress_video(_even(frames), fps=fps, codec="h264")
    return f"data:video/mp4;base64,{base64.b64encode(file).decode()}"


def video_html(frames: Frames, fps: float, title: str | None = None) -> str:
    """Return frames `(time, height, width, 3)` as an HTML player that needs no other file."""
    return _mediapy().show_video(_even(frames), fps=fps, title=title, return_html=True)


def _tile(pictures: list[Frames], columns: int) -> Frames:
    """Tile pictures row by row."""
    pictures = pictures + [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    for picture in pictures if len(pictures) > 1 else []:
        picture[-1] = picture[:, -1] = 128
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)


def _even(frames: Frames) -> Frames:
    """Drop an odd last row or column, which H.264 cannot encode."""
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def _mediapy() -> Any:
    try:
        import imageio_ffmpeg
        import mediapy
    except ImportError as error:
        raise ImportError(f'videos need mediapy and imageio-ffmpeg: pip install "smac-lab[lab]" ({error})') from error
    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    return mediapy
