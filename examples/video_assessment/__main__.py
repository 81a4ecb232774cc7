"""python -m examples.video_assessment: runs the service under uvicorn."""

import argparse
import os
import sys
from pathlib import Path

import uvicorn

from .app import Settings, create_app


class Announcing(uvicorn.Server):
    """A server that prints its address once it listens."""

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"Listening on http://{host}:{port}", flush=True)


def main() -> None:
    """Run the service until SIGTERM or SIGINT."""
    env = os.environ.get
    parser = argparse.ArgumentParser("python -m examples.video_assessment", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0: a free port, which is printed")
    parser.add_argument("--videos-dir", default=env("VIDEO_ASSESSMENT_VIDEOS_DIR", "./uploads"))
    parser.add_argument("--database", default=env("VIDEO_ASSESSMENT_DATABASE", "./assessments.sqlite3"))
    parser.add_argument("--secret", default=env("VIDEO_ASSESSMENT_SECRET", ""), help="shared with the upload server")
    given = parser.parse_args()
    if not given.secret:
        sys.exit("--secret is missing: give the upload server's --webhook-secret (whsec_...)")
    app = create_app(Settings(given.secret, Path(given.videos_dir), Path(given.database)))
    Announcing(uvicorn.Config(app, host=given.host, port=given.port, log_level="warning", ws="none")).run()


if __name__ == "__main__":
    main()
