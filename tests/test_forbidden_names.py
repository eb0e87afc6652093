"""Nothing in querator/ reaches around Env: what would make a run unrepeatable is not even named.

Reads the source, so that a name is found on the path nobody ran.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "querator"
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] != "env" and not path.name.endswith("_pb2.py")
)

MODULES = {
    "asyncio": "trio is the loop",
    "concurrent": "env.threads",
    "multiprocessing": "env.threads",
    "random": "env.rng",
    "secrets": "env.rng",
    "socket": "env.net",
    "threading": "env.threads",
    "time": "env.clock",
    "uuid": "env.rng",
}
"""Modules not to import, and what to use."""

NAMES = {
    "datetime.date.today": "env.clock.now",
    "datetime.datetime.now": "env.clock.now",
    "datetime.datetime.today": "env.clock.now",
    "datetime.datetime.utcnow": "env.clock.now",
    "os.getrandom": "env.rng",
    "os.urandom": "env.rng",
    "trio.current_time": "env.clock.monotonic",
    "trio.fail_at": "trio.fail_after",
    "trio.from_thread": "env.threads",
    "trio.lowlevel.start_thread_soon": "env.threads",
    "trio.move_on_at": "trio.move_on_after",
    "trio.open_ssl_over_tcp_listeners": "env.net.listen",
    "trio.open_ssl_over_tcp_stream": "env.net.connect",
    "trio.open_tcp_listeners": "env.net.listen",
    "trio.open_tcp_stream": "env.net.connect",
    "trio.open_unix_socket": "env.net.connect",
    "trio.serve_ssl_over_tcp": "env.net.listen",
    "trio.serve_tcp": "env.net.listen",
    "trio.sleep": "env.clock.sleep",
    "trio.sleep_until": "env.clock.sleep_until",
    "trio.socket": "env.net",
    "trio.to_thread": "env.threads",
}
"""Dotted names not to use, and what to use."""


class Reader(ast.NodeVisitor):
    """Collects complaints about one module."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._names: dict[str, str] = {}
        self._sets: list[dict[str, None]] = [{}]
        self._set_attributes: dict[str, None] = {}

    def read(self, tree: ast.Module) -> list[str]:
        for node in ast.walk(tree):
            for name in _names_of_sets(node):
                if name.startswith("self."):
                    self._set_attributes[name] = None
        self.visit(tree)
        return self.complaints

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._check_module(node, alias.name)
            self._names[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._check_module(node, node.module or "")
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            self._names[alias.asname or alias.name] = full
            self._check_name(node, full)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if (full := self._full_name(node)) and not self._check_name(node, full):
            return
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        self._complain(node, "bare assert: python -O strips it; use querator.core.invariants.check")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Name):
            if function.id == "hash":
                self._complain(node, "hash(): of text it differs from process to process")
            elif function.id in (
                "list",
                "tuple",
                "iter",
                "enumerate",
                "zip",
                "map",
                "filter",
                "dict",
                "next",
            ):
                for argument in node.args:
                    self._check_iteration(argument)
        if self._full_name(function) == "trio.CancelScope" and any(
            k.arg == "deadline" for k in node.keywords
        ):
            self._complain(node, "CancelScope(deadline=): use trio.move_on_after, or relative_deadline=")
        for keyword in node.keywords:
            if (
                keyword.arg == "key"
                and isinstance(keyword.value, ast.Name)
                and keyword.value.id in ("id", "hash")
            ):
                self._complain(node, f"order by {keyword.value.id}(): it differs from run to run")
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._check_iteration(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._check_iteration(node.value)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._visit_comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._visit_comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._visit_comprehension(node)

    def _visit_comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        """A set built from a set is fine, hence no SetComp. sum(x for x in {...}) is too rare to allow."""
        for generator in node.generators:
            self._check_iteration(generator.iter)
        self.generic_visit(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name == "__del__":
            self._complain(node, "__del__: it runs when the collector likes")
        sets: dict[str, None] = {}
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            if argument.annotation is not None and _is_set_type(argument.annotation):
                sets[argument.arg] = None
        for inner in ast.walk(node):
            for name in _names_of_sets(inner):
                sets[name] = None
        self._sets.append(sets)
        self.generic_visit(node)
        self._sets.pop()

    def _check_iteration(self, node: ast.expr) -> None:
        name = ast.unparse(node)
        known = (
            name in self._set_attributes if name.startswith("self.") else any(name in s for s in self._sets)
        )
        if known or _is_set(node):
            self._complain(node, f"iterates over the set {name}: use sorted() or dict.fromkeys()")

    def _check_module(self, node: ast.stmt, module: str) -> None:
        root = module.partition(".")[0]
        if root in MODULES:
            self._complain(node, f"import {module}: use {MODULES[root]}")

    def _check_name(self, node: ast.AST, full: str) -> bool:
        for name, instead in NAMES.items():
            if full == name or full.startswith(f"{name}."):
                self._complain(node, f"{full}: use {instead}")
                return False
        return True

    def _full_name(self, node: ast.expr) -> str:
        """The dotted name with its imports resolved; "" when it is no dotted name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._names:
            return ""
        return ".".join((self._names[node.id], *reversed(parts)))

    def _complain(self, node: ast.AST, text: str) -> None:
        self.complaints.append(f"{getattr(node, 'lineno', 0)}: {text}")


def _names_of_sets(node: ast.AST) -> Iterator[str]:
    """What this statement makes a set of, as written: ``name`` or ``self.name``."""
    if isinstance(node, ast.Assign) and _is_set(node.value):
        yield from (ast.unparse(target) for target in node.targets)
    elif isinstance(node, ast.AnnAssign) and _is_set_type(node.annotation):
        name = ast.unparse(node.target)
        yield name


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left) or _is_set(node.right)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("set", "frozenset")
    )


def _is_set_type(node: ast.expr) -> bool:
    outer = node.value if isinstance(node, ast.Subscript) else node
    return isinstance(outer, ast.Name) and outer.id in ("set", "frozenset", "Set", "AbstractSet")


def complaints_about(source: str) -> list[str]:
    return Reader().read(ast.parse(source))


@pytest.mark.parametrize("file", FILES)
def test_the_module_reaches_the_world_through_env_only(file: str) -> None:
    assert complaints_about((ROOT / file).read_text()) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import time", "1: import time: use env.clock"),
        ("from time import monotonic", "1: import time: use env.clock"),
        ("import os\nos.urandom(8)", "2: os.urandom: use env.rng"),
        ("from os import urandom", "1: os.urandom: use env.rng"),
        ("import datetime as dt\ndt.datetime.now()", "2: datetime.datetime.now: use env.clock.now"),
        (
            "from datetime import datetime\nx = datetime.utcnow",
            "2: datetime.datetime.utcnow: use env.clock.now",
        ),
        ("import trio\ntrio.to_thread.run_sync(f)", "2: trio.to_thread.run_sync: use env.threads"),
        ("from trio import sleep", "1: trio.sleep: use env.clock.sleep"),
        ("import trio as t\nt.sleep_until(3)", "2: trio.sleep_until: use env.clock.sleep_until"),
        ("assert x", "1: bare assert: python -O strips it; use querator.core.invariants.check"),
        ("class A:\n def __del__(self): pass", "2: __del__: it runs when the collector likes"),
        ("hash('a')", "1: hash(): of text it differs from process to process"),
        ("sorted(x, key=id)", "1: order by id(): it differs from run to run"),
        ("for x in {1, 2}: pass", "1: iterates over the set {1, 2}: use sorted() or dict.fromkeys()"),
        (
            "def f():\n s = set(y)\n return [x for x in s]",
            "3: iterates over the set s: use sorted() or dict.fromkeys()",
        ),
        (
            "def f(s: set[int]):\n return list(s)",
            "2: iterates over the set s: use sorted() or dict.fromkeys()",
        ),
        (
            "class A:\n def f(self):\n  self.s: set[int] = set()\n def g(self):\n  for x in self.s: pass",
            "5: iterates over the set self.s: use sorted() or dict.fromkeys()",
        ),
        (
            "import trio\ntrio.CancelScope(deadline=3)",
            "2: CancelScope(deadline=): use trio.move_on_after, or relative_deadline=",
        ),
    ],
)
def test_a_bypass_is_found(source: str, complaint: str) -> None:
    assert complaints_about(source) == [complaint]


@pytest.mark.parametrize(
    "source",
    [
        "import trio\nwith trio.move_on_after(3): pass",
        "import datetime\ndatetime.datetime.fromtimestamp(3, datetime.UTC)",
        "def f(s: set[int]):\n return sorted(s), len(s), 3 in s",
        "for x in dict.fromkeys(y): pass",
        "self.time.sleep()",
        "import trio\ntrio.sleep_forever()",
    ],
)
def test_what_is_fine_is_left_alone(source: str) -> None:
    assert complaints_about(source) == []
