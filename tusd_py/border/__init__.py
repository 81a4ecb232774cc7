"""ASGI and HTTP: everything that a request passes on its way to the engine and back."""
