"""What there is to say about a video, from the file alone."""

from dataclasses import dataclass
from pathlib import Path

import av

TOLERANCE_S = 0.5  # containers round the duration, and the last frame's own length is not always told


class NotAVideo(Exception):
    """The file has no picture that moves; the text says what it is instead."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found."""

    container: str  # "mov,mp4,m4a,3gp,3g2,mj2" and so on, FFmpeg's names
    video_codec: str
    audio_codecs: tuple[str, ...]
    duration_s: float
    width: int  # pixels
    height: int  # pixels
    frame_rate: float  # frames a second, on average
    frames: int  # that could be decoded
    decodes_to_end: bool
    error: str = ""  # where decoding broke off


def assess(path: Path) -> Assessment:
    """Return what is to be said about the video; it is decoded frame by frame, whatever its length.

    Raises NotAVideo, OSError.
    """
    path.stat()  # FFmpeg would tell a missing file and a broken one alike
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as exc:
        raise NotAVideo(f"no container that FFmpeg knows ({exc.strerror})") from exc
    with container:
        if not container.streams.video:
            raise NotAVideo(f"a {container.format.name} file without a video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        declared_s = duration_of(container, stream)
        frames, seen_s, error = 0, 0.0, ""
        try:
            for frame in container.decode(stream):
                frames += 1
                if frame.time is not None:
                    seen_s = max(seen_s, frame.time)
        except av.error.FFmpegError as exc:
            error = f"decoding broke off after {frames} frames: {exc.strerror}"
        rate = float(stream.average_rate or 0)
        if not error and seen_s + TOLERANCE_S + (1 / rate if rate else 0) < declared_s:
            error = f"the pictures end at {seen_s:.2f} s of {declared_s:.2f} s"
        return Assessment(
            container=container.format.name,
            video_codec=stream.codec_context.name,
            audio_codecs=tuple(audio.codec_context.name for audio in container.streams.audio),
            duration_s=round(declared_s, 3),
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            frame_rate=round(rate, 3),
            frames=frames,
            decodes_to_end=not error and frames > 0,
            error=error,
        )


def duration_of(container: "av.container.InputContainer", stream: "av.VideoStream") -> float:
    """Return the duration that the file declares, in seconds: the video stream's, else the container's, else 0."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else 0.0
