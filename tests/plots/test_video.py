"""Videos: frames that are labelled, files that hold them, and TensorBoard that shows them."""

from __future__ import annotations

import logging
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamer_agent.dreams import Compared, OpenLoop
from dreamer_agent.plots import dream_frames, episode_frames, log_picture, video, write_video
from dreamer_agent.plots.frames import scale
from dreamer_agent.plots.style import IMAGINED, OBSERVED, rgb
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.record import Recording


def dreamed(steps: int = 6, observed: int = 3, side: int = 8, channels: int = 3, sequences: int = 2) -> OpenLoop:
    rng = np.random.default_rng(0)
    shape = (sequences, steps, side, side, channels)
    truth, prediction = (rng.integers(0, 256, shape).astype(np.uint8) for _ in range(2))
    line = Compared(np.zeros((sequences, steps)), np.zeros((sequences, steps)))
    specs = {"image": ArraySpec("image", shape[2:])}
    first = np.zeros((sequences, steps), bool)
    return OpenLoop({"image": truth}, {"image": prediction}, line, line, first, observed, specs)


def color(text: str) -> list[int]:
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def moving(count: int, height: int = 21, width: int = 31) -> list[np.ndarray]:
    frames = np.zeros((count, height, width, 3), np.uint8)
    for index in range(count):
        frames[index, :, 2 * index] = 255
    return list(frames)


def test_the_frames_of_a_dream_hold_its_images_enlarged_and_framed() -> None:
    dream = dreamed()
    frames = dream_frames(dream, "image")
    assert len(frames) == 6 and len({frame.shape for frame in frames}) == 1
    for step, frame in enumerate(frames):
        assert frame[0, 0].tolist() == color(OBSERVED if step < 3 else IMAGINED)
        for images in (dream.truth["image"], dream.prediction["image"]):
            assert contains(frame, scale(images[1, step]))
        gap = np.abs(dream.truth["image"][1, step].astype(int) - dream.prediction["image"][1, step])
        assert contains(frame, scale(gap.astype(np.uint8)))
    assert len(dream_frames(dreamed(side=64, sequences=1), "image")) == 6


def contains(frame: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` stands somewhere in `frame`, found by the first pixels of its first row."""
    windows = np.lib.stride_tricks.sliding_window_view(frame, (1, 40, 3))[:, :, 0, 0]
    for y, x in np.argwhere((windows == part[0, :40]).all((-1, -2))):
        if np.array_equal(frame[y : y + part.shape[0], x : x + part.shape[1]], part):
            return True
    return False


def test_labels_change_with_the_phase_the_step_and_a_reset() -> None:
    dream = dreamed()
    still = dream._replace(
        truth={"image": np.zeros_like(dream.truth["image"])},
        prediction={"image": np.zeros_like(dream.truth["image"])},
    )
    frames = dream_frames(still, "image")
    assert all((a != b).any() for a, b in pairwise(frames))  # the images stand still
    first = still.is_first.copy()
    first[1, 4] = True
    marked = dream_frames(still._replace(is_first=first), "image")
    changed = [bool((a != b).any()) for a, b in zip(frames, marked, strict=True)]
    assert changed == [False, False, False, False, True, True]
    first[1] = [False, True, False, False, False, False]  # a reset that the model saw is no excuse
    seen = dream_frames(still._replace(is_first=first), "image")
    assert all((a == b).all() for a, b in zip(frames, seen, strict=True))


def test_the_caption_of_an_episode_counts_steps_and_return() -> None:
    pictures = np.full((4, 10, 10, 1), 60, np.uint8)
    one = episode_frames(Recording(pictures, np.array([0.0, 1.0, 1.0, 1.0])), "title")
    two = episode_frames(Recording(pictures, np.array([0.0, 1.0, 5.0, 1.0])), "title")
    assert len(one) == 4 and len({frame.shape for frame in one}) == 1
    assert [bool((a != b).any()) for a, b in zip(one, two, strict=True)] == [False, False, True, True]
    assert (one[0] != one[1]).any()
    assert (one[0][-240:] == 60).all() and one[0].shape[1] == 240  # ten pixels, enlarged by twenty-four
    cut = episode_frames(Recording(pictures, np.zeros(10)), "a title that is longer than the picture is wide")
    assert len(cut) == 4 and cut[0].shape[1] > 240


def test_images_are_scaled_by_whole_factors() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    enlarged = scale(image, least=5)
    assert enlarged.shape == (6, 6, 3)
    np.testing.assert_array_equal(enlarged[::3, ::3], image)
    np.testing.assert_array_equal(enlarged[2::3, 2::3], image)
    assert scale(np.zeros((3, 640, 320, 3), np.uint8)).shape == (3, 320, 160, 3)
    assert scale(np.zeros((200, 130, 3), np.uint8)).shape == (200, 130, 3)


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, [1, 1, 1]), (2, [2, 2, 2]), (3, [1, 2, 3]), (4, [2, 2, 2]), (6, [4, 5, 6])]
)
def test_any_number_of_channels_becomes_colour(channels: int, expected: list[int]) -> None:
    image = np.broadcast_to(np.arange(1, channels + 1, dtype=np.uint8), (2, 2, channels))
    assert (rgb(image) == expected).all()


@pytest.mark.parametrize("fine", [0, 200])
def test_a_gif_has_every_frame_and_its_pace(tmp_path, monkeypatch, fine) -> None:
    frames = moving(7)
    monkeypatch.setattr(video, "FINE_FRAMES", fine)
    path = write_video(frames, tmp_path / "new" / "a.png", fps=10)[0]
    with Image.open(path) as gif:
        assert path.name == "a.gif" and gif.n_frames == 7 and gif.size == (31, 21)
        assert gif.info["duration"] == 100 and gif.info["loop"] == 0
        for index, frame in enumerate(frames):
            gif.seek(index)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() <= 8


@pytest.mark.filterwarnings("ignore:os.fork")  # by the package that reads it back
def test_an_mp4_has_every_frame_in_even_sizes(tmp_path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = moving(7)
    paths = write_video(frames, tmp_path / "a.gif", fps=10)
    assert [path.name for path in paths] == ["a.gif", "a.mp4"]
    reader = ffmpeg.read_frames(str(paths[1]))
    meta = next(reader)
    assert meta["size"] == (32, 22) and meta["fps"] == 10 and meta["pix_fmt"].startswith("yuv420p")
    decoded = [np.frombuffer(frame, np.uint8).reshape(22, 32, 3) for frame in reader]
    assert len(decoded) == 7
    for index, frame in enumerate(decoded):
        assert frame[:, 2 * index].mean() > 128 > frame[:, 2 * index + 4 :].mean()


def test_without_the_package_there_is_a_gif_and_one_line(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    video._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            paths = write_video(moving(2), tmp_path / name, fps=10)
            assert paths == [tmp_path / f"{name}.gif"] and paths[0].exists()
    (line,) = [record.message for record in caplog.records]
    assert "No MP4" in line and "dreamer-agent[video]" in line
    video._say_once.cache_clear()


def test_tensorboard_holds_the_very_files(tmp_path) -> None:
    pytest.importorskip("tensorboardX")
    path = write_video(moving(3), tmp_path / "a", fps=10)[0]
    log_picture(tmp_path / "board", "dream", path, step=12)
    (image,) = images_of(tmp_path / "board")
    assert image == (12, "dream", 21, 31, path.read_bytes())


def images_of(folder: Any) -> list[tuple]:
    """Step, name, height, width and content of the images in the event files of `folder`."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in folder.glob("events.out.tfevents*"):
        data = file.read_bytes()
        while data:  # a record: length, its checksum, the event, its checksum
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                image = value.image
                found.append((event.step, value.tag, image.height, image.width, image.encoded_image_string))
    return found


def test_tensorboard_may_be_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    log_picture(tmp_path / "board", "dream", tmp_path / "none.png", step=0)
    assert not (tmp_path / "board").exists()


@pytest.mark.parametrize("best", [False, True])
def test_the_checkpoint_that_is_scored_is_the_one_that_is_filmed(monkeypatch, best: bool) -> None:
    from dreamer_agent.errors import RunDirectoryError
    from dreamer_agent.plots import plot_episodes, runs

    def load(run: str, asked: bool) -> None:
        raise RunDirectoryError(f"{run}, best={asked}")

    monkeypatch.setattr(runs, "load_saved", load)
    with pytest.raises(RunDirectoryError, match=f"somewhere, best={best}"):
        plot_episodes("somewhere", best=best)
