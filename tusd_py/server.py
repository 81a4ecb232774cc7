"""The uvicorn protocol under its documented name: `uvicorn --http tusd_py.server:KernelProtocol`."""

from .border.kernel import KernelProtocol

__all__ = ["KernelProtocol"]
