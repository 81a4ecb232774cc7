"""Small real videos, made by PyAV."""

from fractions import Fraction
from pathlib import Path
from struct import pack

import av
import numpy as np


def make_video(
    path: Path,
    *,
    seconds: float = 2.0,
    width: int = 320,
    height: int = 240,
    rate: int = 25,
    index_first: bool = False,
    live: bool = False,
) -> Path:
    """Write an H.264 video and return its path. It shows noise, which does not compress: about 1 MB per second.

    index_first: put an MP4's index before the frames. live: write a Matroska file without a duration, as for a stream.
    """
    noise = np.random.default_rng(0)
    options = {"movflags": "faststart"} if index_first else {"live": "1"} if live else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, rate)
        for n in range(round(seconds * rate)):
            picture = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rotated(mp4: bytes) -> bytes:
    """Return the video with a rotation by 90 degrees in its track header's matrix (ISO/IEC 14496-12, 8.3.2)."""
    matrix = mp4.index(b"tkhd") + 4 + 40  # in version 0, 40 bytes stand before the matrix
    quarter = pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    return mp4[:matrix] + quarter + mp4[matrix + len(quarter) :]
