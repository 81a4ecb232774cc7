"""Assesses a video from its file alone."""

from dataclasses import dataclass
from pathlib import Path

import av

TOLERANCE_S = 0.5  # a container's duration is that of its longest stream, and the sound is often longer than the video


class NotAVideo(Exception):
    """The file is not a video that can be assessed; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The result for one video."""

    container: str  # FFmpeg's names of the format, for example "mov,mp4,m4a,3gp,3g2,mj2"
    video_codec: str
    audio_codecs: tuple[str, ...]
    duration_s: float
    width: int  # pixels
    height: int  # pixels
    frame_rate: float  # frames per second, on average
    frames: int  # number of decoded frames
    decodes_to_end: bool
    error: str = ""  # why and where decoding stopped early


def assess(path: Path) -> Assessment:
    """Decode a video frame by frame to its end, and return its assessment. Raises NotAVideo, OSError."""
    path.stat()  # raises OSError if the file is missing; av.open() raises an FFmpegError as for a broken one
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as exc:
        raise NotAVideo(f"FFmpeg cannot open the file as a video ({exc.strerror})") from exc
    with container:
        if not container.streams.video:
            raise NotAVideo(f"the {container.format.name} file has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 0)
        decoded = decode(container, stream)
        declared_s, tolerance_s = declared(container, stream)
        error = decoded.error
        if not error and decoded.covered_s + tolerance_s < declared_s:
            error = f"the frames end after {decoded.covered_s:.2f} s of {declared_s:.2f} s"
        width, height = stream.codec_context.width, stream.codec_context.height
        return Assessment(
            container=container.format.name,
            video_codec=stream.codec_context.name,
            audio_codecs=tuple(audio.codec_context.name for audio in container.streams.audio),
            duration_s=round(declared_s or decoded.covered_s, 3),
            # A phone held upright records landscape frames, with a rotation for the player.
            width=height if decoded.rotation % 180 else width,
            height=width if decoded.rotation % 180 else height,
            frame_rate=round(rate, 3),
            frames=decoded.frames,
            decodes_to_end=not error and decoded.frames > 0,
            error=error,
        )


@dataclass(slots=True)
class Decoded:
    """The result of decoding a stream."""

    frames: int = 0
    first_s: float | None = None  # start of the first frame; some containers do not begin at 0
    end_s: float = 0.0  # end of the last frame
    rotation: int = 0  # degrees
    error: str = ""  # why and where decoding stopped early

    @property
    def covered_s(self) -> float:
        """The seconds from the first frame to the end of the last."""
        return self.end_s - (self.first_s or 0.0)


def decode(container: "av.container.InputContainer", stream: "av.VideoStream") -> Decoded:
    """Decode the stream to its end or to the first error."""
    decoded = Decoded()
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:  # the file ends inside this packet; the decoder may not report that
                decoded.error = f"the file ends inside a frame, after {decoded.frames} whole frames"
                break
            for frame in packet.decode():
                decoded.frames += 1
                decoded.rotation = frame.rotation
                if frame.time is not None and frame.time_base is not None:
                    decoded.first_s = frame.time if decoded.first_s is None else min(decoded.first_s, frame.time)
                    decoded.end_s = max(decoded.end_s, frame.time + float(frame.duration * frame.time_base))
    except av.error.FFmpegError as exc:
        decoded.error = f"decoding failed after {decoded.frames} frames: {exc.strerror}"
    return decoded


def declared(container: "av.container.InputContainer", stream: "av.VideoStream") -> tuple[float, float]:
    """Return the duration that the file declares (0 if it declares none) and its tolerance, both in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base), 1.5 / float(stream.average_rate or 25)  # 1.5 frames
    if container.duration is not None:
        return container.duration / av.time_base, TOLERANCE_S
    return 0.0, 0.0
