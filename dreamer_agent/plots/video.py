"""Files of moving pictures: GIF, MP4, and both kinds of picture in TensorBoard."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dreamer_agent.errors import missing_extra

FINE_FRAMES = 200  # GIFs up to this length take the time for fine colours


def write_video(frames: Sequence[np.ndarray], path: Path, fps: float) -> list[Path]:
    """Write `frames` `[T, H, W, 3]` uint8 as GIF and MP4 beside each other; gives the paths written.

    The suffix of `path` is replaced. Where the package for MP4 is missing there is the GIF alone, and one
    line in the log says what to install.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [write_gif(frames, path.with_suffix(".gif"), fps)]
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        _say_once(f"No MP4, only GIF: {missing_extra('imageio-ffmpeg', 'video')}")
        return paths
    return [*paths, write_mp4(frames, path.with_suffix(".mp4"), fps)]


def write_gif(frames: Sequence[np.ndarray], path: Path, fps: float) -> Path:
    """Write an endless GIF. Equal neighbours are stored as one frame that lasts longer."""
    from PIL import Image

    # Each frame has its own palette. The octree's takes a fifth of the time, but swallows faint dark shades.
    method = Image.Quantize.MEDIANCUT if len(frames) <= FINE_FRAMES else Image.Quantize.FASTOCTREE
    first, *rest = (Image.fromarray(f).quantize(method=method, dither=Image.Dither.NONE) for f in frames)
    # The format counts in hundredths of a second, and viewers slow down whatever is below two.
    duration = 10 * max(round(100 / fps), 2)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)
    return path


def write_mp4(frames: Sequence[np.ndarray], path: Path, fps: float) -> Path:
    """Write H.264 in the pixel format that every player knows, which asks for even sides: odd ones get a row.

    The program of imageio-ffmpeg is called directly: the package's own writer forks in a way that JAX warns of.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    height, width = frames[0].shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width + width % 2}x{height + height % 2}"]
    target = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart"]
    command = [get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, "-r", f"{fps:g}", "-i", "-", *target]
    pipe = subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE)
    assert pipe.stdin is not None
    with pipe.stdin as stdin:
        for frame in frames:
            stdin.write(np.pad(frame, padding, mode="edge").tobytes())
    if pipe.wait():
        raise subprocess.CalledProcessError(pipe.returncode, command)
    return path


def log_picture(folder: Path, name: str, path: Path, step: int) -> None:
    """Show the PNG or GIF at `path` in the TensorBoard of `folder`; nothing happens without tensorboardX.

    The encoded file goes in as it is, so that a GIF moves there, too.
    """
    try:
        from tensorboardX import SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError:
        return
    from PIL import Image

    with Image.open(path) as opened:
        width, height = opened.size
    image = Summary.Image(encoded_image_string=path.read_bytes(), height=height, width=width, colorspace=3)
    with SummaryWriter(str(folder)) as writer:
        writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)


@cache
def _say_once(line: str) -> None:
    """One line, however many videos are written."""
    logging.getLogger("dreamer_agent").warning(line)
