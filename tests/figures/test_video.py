"""Headless rendering: frames show what happened, and files and players can be made of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import smac_lab as lab
from smac_lab.data import rollout
from smac_lab.engine.rollout import scripted_policy
from smac_lab.figures import video
from smac_lab.tasks import FAMILIES, rendering
from smac_lab.tasks.rendering import BodyRenderer


@pytest.fixture
def renderer() -> None:
    """Skips a test of bodies where nothing can render them."""
    try:
        rendering._context_class()
    except RuntimeError as error:
        pytest.skip(str(error))


def still(observations: np.ndarray) -> np.ndarray:
    return np.zeros((len(observations), 6))


@pytest.mark.parametrize("name", ["cheetah-vel", "ant-dir"])
@pytest.mark.usefixtures("renderer")
def test_the_camera_follows_the_body(name: str) -> None:
    import mujoco

    family = lab.make_family(name)
    data = mujoco.MjData(family.model)
    with BodyRenderer(family.model, 160, 120) as body:
        here = body.render(data)
        data.qpos[0] += 8.0  # a multiple of the floor's pattern
        there = body.render(data)
        data.qpos[-1] += 0.4
        moved = body.render(data)
    assert here.shape == (120, 160, 3)
    assert here.dtype == np.uint8
    skin = (here[..., 0].astype(int) - here[..., 2] > 30).nonzero()  # body in brown, floor and sky in grey
    assert 50 < len(skin[0]) < 6000
    assert 40 < skin[0].mean() < 80
    assert 60 < skin[1].mean() < 100
    both = (there[..., 0].astype(int) - there[..., 2] > 30).nonzero()
    assert abs(both[1].mean() - skin[1].mean()) < 2
    assert (moved != there).any()
    assert family.model.vis.global_.offwidth == 640  # the family's own model is left alone
    with pytest.raises(RuntimeError, match="closed"):
        body.render(data)
    body.close()


@pytest.mark.usefixtures("renderer")
def test_pictures_may_be_larger_than_the_models_default_and_renderers_do_not_interfere() -> None:
    import mujoco

    models = [lab.make_family(name).model for name in ("cheetah-vel", "ant-dir")]
    bodies = [BodyRenderer(model, 800, 600) for model in models]
    datas = [mujoco.MjData(model) for model in models]
    first = [body.render(data) for body, data in zip(bodies, datas, strict=True)]
    assert first[0].shape == (600, 800, 3)
    assert (first[0] != first[1]).any()
    for body, data, picture in zip(bodies, datas, first, strict=True):
        np.testing.assert_array_equal(body.render(data), picture)
    bodies[0].close()
    np.testing.assert_array_equal(bodies[1].render(datas[1]), first[1])
    bodies[1].close()


@pytest.mark.parametrize("name", FAMILIES)
def test_environments_render(name: str, request: pytest.FixtureRequest) -> None:
    if name in ("cheetah-vel", "ant-dir"):
        request.getfixturevalue("renderer")
    env = gym.make(f"smac_lab/{FAMILIES[name].__name__}-v0", render_mode="rgb_array", width=96, height=64)
    env.reset(seed=0)
    before = env.render()
    env.action_space.seed(0)
    for _ in range(5):
        env.step(env.action_space.sample())
    after = env.render()
    for picture in (before, after):
        assert picture.shape == (64, 96, 3)
        assert picture.dtype == np.uint8
    assert (before != after).any()
    env.close()
    env.close()


def test_a_film_of_point_robots_shows_robot_and_goal() -> None:
    family = lab.make_family("point-robot")
    tasks = lab.Tasks([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    policy = scripted_policy(family, tasks, 0.0, np.random.default_rng(0))
    film = video.render_episodes(policy, family, tasks, width=120, height=90, every=2)
    assert film.frames.shape == (10, 180, 240, 3)
    assert film.fps == pytest.approx(5)
    np.testing.assert_allclose(film.episodes.returns, -4.5, atol=1e-9)

    def centre(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
        return np.argwhere((frame == colour).all(-1)).mean(0)

    tile = film.frames[:, :90, :120]  # the first task: from the middle to the goal on the right
    start, goal = centre(tile[0], (0, 114, 178)), centre(tile[0], (230, 159, 0))
    np.testing.assert_allclose(start, [44.5, 59.5], atol=1)
    np.testing.assert_allclose(goal, [44.5, 59.5 + 89 / 4.4], atol=1)
    np.testing.assert_allclose(centre(tile[-1], (0, 114, 178)), goal, atol=1.5)
    assert (film.frames[:, 90:, 120:][:, :-1, :-1] == 255).all()  # no fourth task

    short = video.render_episodes(policy, family, tasks, width=120, height=90, every=2, steps=6)
    assert len(short.frames) == 3
    assert len(short.episodes.rewards[0]) == 20  # acted to the end all the same


@pytest.mark.usefixtures("renderer")
def test_a_film_is_of_the_very_rollout() -> None:
    family = lab.make_family("cheetah-vel")
    family.horizon = 12
    tasks, _ = family.split(2, 1, seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 2, 6))
    films, plain = [], []
    for _ in range(2):
        step = iter(actions)
        films.append(video.render_episodes(lambda o, step=step: next(step), family, tasks, seed=3, width=64, height=48))
        step = iter(actions)
        plain.append(rollout(lambda o, step=step: next(step), family.batch_env(tasks), seed=3))
    assert films[0].frames.shape == (12, 48, 128, 3)
    assert films[0].fps == pytest.approx(20)
    np.testing.assert_array_equal(films[0].frames, films[1].frames)
    np.testing.assert_array_equal(films[0].episodes.observations, plain[0].observations)
    np.testing.assert_array_equal(films[0].episodes.rewards, plain[0].rewards)


@pytest.mark.parametrize(("suffix", "magic"), [("mp4", b"ftyp"), ("gif", b"GIF8")])
def test_videos_are_written(suffix: str, magic: bytes, tmp_path: Path) -> None:
    pytest.importorskip("mediapy")
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    frames = np.zeros((6, 61, 80, 3), np.uint8)
    frames[3:, :, 40:] = 255
    path = video.save_video(tmp_path / "films" / f"film.{suffix}", frames, fps=10)
    assert magic in path.read_bytes()[:16]
    decode = [ffmpeg, "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(decode, capture_output=True, check=True).stdout
    back = np.frombuffer(raw, np.uint8).reshape(6, 60, 80, 3)
    np.testing.assert_allclose(back[[0, 5]].mean((1, 3))[:, [10, 70]], [[0, 0], [0, 255]], atol=12)


def test_a_player_for_notebooks() -> None:
    pytest.importorskip("mediapy")
    pytest.importorskip("imageio_ffmpeg")
    html = video.video_html(np.zeros((4, 32, 48, 3), np.uint8), fps=10, title="task <1>")
    assert "<video" in html
    assert "data:video/mp4;base64," in html


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**variables, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


DRAW = """
import mujoco
from smac_lab import make_family
from smac_lab.tasks.rendering import BodyRenderer
model = make_family("ant-dir").model
try:
    body = BodyRenderer(model, 64, 48)
except RuntimeError as error:
    print("ERROR", error)
else:
    print("DREW", body.render(mujoco.MjData(model)).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="chooses among the backends of Linux")
@pytest.mark.usefixtures("renderer")
def test_a_backend_is_found_without_a_display_or_advice() -> None:
    """Although MuJoCo was imported first, and has settled on a window by then."""
    done = run(DRAW)
    assert done.stdout == "DREW (48, 64, 3)\n"
    assert done.stderr == ""


def test_where_nothing_renders_one_error_says_how_to_change_that() -> None:
    done = run(DRAW, MUJOCO_GL="off")
    assert done.stdout.startswith("ERROR no OpenGL renderer works here")
    for advice in ("apt-get install libegl1", "libosmesa6", "MUJOCO_GL=egl", "MUJOCO_GL=off"):
        assert advice in done.stdout
