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
    """Write an H.264 video of moving noise, which does not compress: about 1 MB a second. Returns the path.

    index_first puts an MP4's index before the pictures; live makes a Matroska file as a stream that nobody ended.
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


def turned(mp4: bytes) -> bytes:
    """Return the video with the note to show it turned by 90 degrees, in the matrix of ISO/IEC 14496-12, 8.3.2."""
    matrix = mp4.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of flags, times, id, duration, layer and volume
    quarter = pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    return mp4[:matrix] + quarter + mp4[matrix + len(quarter) :]
