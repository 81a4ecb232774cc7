"""The imports of every module, held against the table of the house: they go inward only."""

import ast
from pathlib import Path

import tusd_py

PACKAGE = Path(tusd_py.__file__).parent
TESTS = Path(__file__).parent

# What a module may import: of ours, and of the libraries that decide what it is (the standard library aside).
OURS: dict[str, set[str]] = {
    "protocol.messages": set(),
    "protocol.refusals": set(),
    "protocol.fields": set(),
    "protocol.upload": {"protocol.messages", "protocol.refusals"},
    "protocol.fileinfo": {"protocol.fields", "protocol.messages", "protocol.upload"},
    "protocol.tus1": {"protocol.fields", "protocol.messages", "protocol.refusals", "protocol.upload"},
    "ports": {"protocol"},
    "lease": {"ports", "protocol"},
    "digest": {"ports"},
    "transfer": {"digest", "lease", "ports", "protocol"},
    "events": {"ports", "protocol"},
    "engine": {"events", "lease", "transfer", "ports", "protocol"},
    "upkeep": {"engine", "ports", "protocol"},
    "leaving": {"ports"},
    "threads": set(),
    "ledger.watchers": {"ports"},
    "ledger.binding": {"ports"},
    "ledger.clock": {"protocol"},
    "ledger.values": {"protocol"},
    "ledger.sqlite.file": {"ledger.binding", "protocol", "threads"},
    "ledger.sqlite.rows": {"ledger.values", "ports", "protocol"},
    "ledger.sqlite.ledger": {
        *("ledger.binding", "ledger.clock", "ledger.sqlite.file", "ledger.sqlite.rows", "ledger.watchers"),
        *("ports", "protocol"),
    },
    "ledger.redis.connections": set(),
    "ledger.redis.servers": {"ledger.redis.connections"},
    "ledger.redis.scripts": set(),
    "ledger.redis.rows": {"ledger.values", "ports", "protocol"},
    "ledger.redis.keys": set(),
    "ledger.redis.calls": {"ledger.redis.connections", "ledger.redis.scripts", "ledger.redis.servers", "protocol"},
    "ledger.redis.signals": {"ledger.redis.calls", "ledger.redis.servers", "ledger.watchers", "ports"},
    "ledger.redis.ledger": {
        *("ledger.binding", "ledger.clock", "ledger.redis.calls", "ledger.redis.keys", "ledger.redis.rows"),
        *("ledger.redis.servers", "ledger.redis.signals", "ledger.watchers", "ports", "protocol"),
    },
    "storage.folder": {"ports", "protocol"},
    "storage.sidecar": {"storage.folder"},
    "storage.room": {"protocol", "storage.folder"},
    "storage.posix": {"protocol", "storage.folder"},
    "storage.files": {"protocol", "storage.folder", "storage.room", "storage.sidecar", "threads"},
    "storage.copy": {"ports", "protocol", "storage.files", "storage.posix", "storage.sidecar"},
    "storage.writer": {"protocol", "storage.files", "storage.posix", "threads"},
    "storage.file": {
        "ports",
        "protocol",
        "storage.copy",
        "storage.files",
        "storage.folder",
        "storage.posix",
        "storage.room",
        "storage.sidecar",
        "storage.writer",
        "threads",
    },
    "delivery": {"ports", "protocol"},
    "metrics": set(),
    "settings": set(),
    "wiring": {
        *("delivery", "engine", "leaving", "ledger", "lease", "ports", "protocol", "settings", "storage", "transfer"),
        "upkeep",
    },
    "border.app": {
        *("border.body", "border.forwarded", "engine", "metrics", "ports", "protocol", "settings", "wiring"),
    },
    "border.body": {"ports"},
    "border.forwarded": {"settings"},
    "border.http1": {"protocol"},
    "border.kernel": {"border.body", "border.http1", "border.pump", "border.receiving", "ports"},
    "border.pump": set(),
    "border.receiving": set(),
    "client": set(),
    "serve": {"border.app", "border.kernel", "leaving", "metrics", "ports", "protocol", "settings", "wiring"},
    "cli.options": {"ports", "protocol", "settings", "wiring"},
    "cli.recover": {"cli.options", "upkeep", "wiring"},
    "cli.serve": {"cli.options", "serve", "settings"},
    "cli.tidy": {"cli.options", "upkeep", "wiring"},
    "cli.upload": {"client"},
    "cli.__init__": {"cli", "settings"},
    "app": {"border.app"},
    "server": {"border.kernel"},
    "border.__init__": set(),
    "__main__": {"cli"},
    "__init__": {"app", "settings"},
    "protocol.__init__": set(),
    "ledger.__init__": set(),
    "ledger.redis.__init__": {"ledger.redis.ledger"},
    "ledger.sqlite.__init__": {"ledger.sqlite.ledger"},
    "storage.__init__": set(),
}

LIBRARIES: dict[str, set[str]] = {
    "starlette": {"border.app", "serve"},
    "uvicorn": {"border.http1", "border.kernel", "border.receiving", "serve"},
    "httptools": {"border.http1"},
    "redis": {"ledger.redis.calls", "ledger.redis.connections", "ledger.redis.servers", "ledger.redis.signals"},
    "sqlite3": {"ledger.sqlite.file", "ledger.sqlite.ledger", "ledger.sqlite.rows"},
    "aiofiles": {"storage.file"},
    "prometheus_client": {"metrics"},
    "os": {
        "border.kernel",
        "border.pump",
        "client",
        "ledger.sqlite.file",
        "metrics",
        "serve",
        "settings",
        "storage.copy",
        "storage.file",
        "storage.folder",
        "storage.posix",
        "storage.room",
        "storage.sidecar",
        "storage.writer",
    },
    "httpx": {"delivery"},
    "tusclient": {"client"},
    "click": {"cli.__init__", "cli.options", "cli.recover", "cli.serve", "cli.tidy", "cli.upload", "client"},
}


def imports_of(module: str) -> set[str]:
    """Return what a module imports: ours as dotted names inside the package, others by their top name."""
    path = PACKAGE / (module.replace(".", "/") + ".py")
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            targets = [node.module] if node.module else [name.name for name in node.names]
            found |= {"." + ".".join([*base, target]) for target in targets}
    return found


MODULES = sorted(str(path.relative_to(PACKAGE))[:-3].replace("/", ".") for path in PACKAGE.rglob("*.py"))


def test_every_module_has_its_place() -> None:
    """A new module is a decision: it gets a row here."""
    assert sorted(OURS) == MODULES


def test_imports_go_inward_only() -> None:
    for module in MODULES:
        ours = {name[1:] for name in imports_of(module) if name.startswith(".")}
        outward = {name for name in ours if not any(name == may or name.startswith(may + ".") for may in OURS[module])}

        assert set() == outward, module


def test_only_its_own_module_knows_a_library() -> None:
    for module in MODULES:
        for library, places in LIBRARIES.items():
            if library in imports_of(module):
                assert module in places, f"{module} imports {library}"


def test_protocol_neither_awaits_nor_looks_at_the_clock_nor_logs() -> None:
    for module in MODULES:
        if module.startswith("protocol."):
            tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())

            assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree)), module
            assert set() == imports_of(module) & {"asyncio", "time", "datetime", "logging", "os", "random"}, module


def test_no_module_imports_a_test_module() -> None:
    """What tests share lives in tests/support/."""
    for path in sorted(TESTS.rglob("*.py")):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module or ''}.{name.name}" for name in node.names}
        parts = {part for name in imported if name.startswith(("tests", ".")) for part in name.split(".")}

        assert set() == {part for part in parts if part.startswith("test_") or part == "conftest"}, path
