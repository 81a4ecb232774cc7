"""Small real videos, made by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def make_video(path: Path, *, seconds: float = 2.0, width: int = 320, height: int = 240, rate: int = 25) -> Path:
    """Write an H.264 MP4 of moving noise, which does not compress: about 1 MB a second. Returns the path."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
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
