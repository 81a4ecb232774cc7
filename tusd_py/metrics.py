"""Figures for an operator, in the text form that Prometheus reads."""

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks at it when it is imported

BODIES = Counter("tusd_py_bodies", "Request bodies that brought bytes, by who carried them.", ["carried_by"])
BODY_BYTES = Counter("tusd_py_body_bytes", "Bytes of uploads that were stored, by who carried them.", ["carried_by"])


def count_body(carried_by: str, length: int) -> None:
    """Count a body of that many bytes; carried_by is "kernel" or "python"."""
    BODIES.labels(carried_by).inc()
    BODY_BYTES.labels(carried_by).inc(length)


def exposition() -> bytes:
    """Return the figures of this process; of all workers where there are several."""
    registry = REGISTRY
    if MULTIPROC_DIR in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
