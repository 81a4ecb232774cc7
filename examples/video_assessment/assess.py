"""What there is to say about a video, from the file alone."""

from dataclasses import dataclass
from pathlib import Path

import av

TOLERANCE_S = 0.5  # the duration of a container is that of its longest stream, and sound often outlasts the pictures


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
        rate = float(stream.average_rate or 0)
        seen = watch(container, stream)
        declared_s, tolerance_s = declared(container, stream)
        error = seen.error
        if not error and seen.covered_s + tolerance_s < declared_s:
            error = f"the pictures end after {seen.covered_s:.2f} s of {declared_s:.2f} s"
        width, height = stream.codec_context.width, stream.codec_context.height
        return Assessment(
            container=container.format.name,
            video_codec=stream.codec_context.name,
            audio_codecs=tuple(audio.codec_context.name for audio in container.streams.audio),
            duration_s=round(declared_s or seen.covered_s, 3),
            # A phone held upright stores its picture lying down, with a note to turn it.
            width=height if seen.rotation % 180 else width,
            height=width if seen.rotation % 180 else height,
            frame_rate=round(rate, 3),
            frames=seen.frames,
            decodes_to_end=not error and seen.frames > 0,
            error=error,
        )


@dataclass(slots=True)
class Seen:
    """What decoding showed."""

    frames: int = 0
    first_s: float | None = None  # of the first picture; some containers do not begin at 0
    end_s: float = 0.0  # of the last picture
    rotation: int = 0  # degrees
    error: str = ""  # where decoding broke off

    @property
    def covered_s(self) -> float:
        """The seconds from the first picture to the end of the last."""
        return self.end_s - (self.first_s or 0.0)


def watch(container: "av.container.InputContainer", stream: "av.VideoStream") -> Seen:
    """Decode the stream to its end, or to where it breaks, and return what was seen."""
    seen = Seen()
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:  # the file ends within it; the decoder may hide that
                seen.error = f"the file ends within a picture, after {seen.frames} whole ones"
                break
            for frame in packet.decode():
                seen.frames += 1
                seen.rotation = frame.rotation
                if frame.time is not None and frame.time_base is not None:
                    seen.first_s = frame.time if seen.first_s is None else min(seen.first_s, frame.time)
                    seen.end_s = max(seen.end_s, frame.time + float(frame.duration * frame.time_base))
    except av.error.FFmpegError as exc:
        seen.error = f"decoding broke off after {seen.frames} frames: {exc.strerror}"
    return seen


def declared(container: "av.container.InputContainer", stream: "av.VideoStream") -> tuple[float, float]:
    """Return the duration that the file declares, 0 when it does not, and how far it may be off, both in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base), 1.5 / float(stream.average_rate or 25)  # frames, rounded
    if container.duration is not None:
        return container.duration / av.time_base, TOLERANCE_S
    return 0.0, 0.0
