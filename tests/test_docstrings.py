"""Docstrings of public functions state the shapes of their arrays, and the errors that the body raises.

ruff checks that docstrings exist (rules D). This test reads the annotations: a function with an array among its
parameters or results names a shape, as in `float32 [rows, classes]`, or refers to one ("same shape", "as `kl_rows`"). A
method that overrides another may leave both to it. ROOMS lists the parts of the package that are checked.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hms_dist"
ROOMS = (
    "api", "canvas", "cluster", "config", "core", "grid", "imports", "jobs", "labels", "model", "panels", "predict",
    "recordings", "rendering", "results", "search", "shards", "signals", "stream", "train",
)  # fmt: skip
"""Packages whose public functions are checked."""
TEXTS = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
ALIASES = {name for text in TEXTS.values() for name in re.findall(r"^(\w+) = NDArray\[", text, re.MULTILINE)}
ARRAYS = re.compile(rf"\b(?:NDArray|Tensor|ndarray|{'|'.join(sorted(ALIASES))})\b")
"""Names in annotations that mean an array."""
NO_ARRAYS = re.compile(r"\w+\[str, Tensor\]|Callable\[.*\]|[Tt]ype\[\w+\]")
"""Parts of annotations that have no shape: state dicts, functions, classes."""
SHAPE = re.compile(
    r"\[[^\]]+\]|\((?:batch|rows|heads|channels|classes)[^)]*\)|(?i:same shape)|spec\.shape|any shape"
    r"|\b(?:as|[Ss]ee)\s(?:those of )?`\w[\w.]*`"
)
"""A shape in brackets, or a reference to one."""
ERRORS = re.compile(r"\b[Rr]aises?\b|\bSee `\w+`")


@dataclass(frozen=True)
class Function:
    """A public function or method."""

    where: str
    node: ast.FunctionDef
    owner: ast.ClassDef | None


def classes() -> dict[str, ast.ClassDef]:
    """All classes of the package by their bare names, which are unique where it matters."""
    return {node.name: node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def overrides(name: str, owner: ast.ClassDef, known: dict[str, ast.ClassDef]) -> bool:
    """Whether a class of the package, from which `owner` is derived, has a method `name`."""
    for base in owner.bases:
        parent = known.get(ast.unparse(base).split(".")[-1].split("[")[0])
        if parent is None or parent is owner:
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == name for node in parent.body):
            return True
        if overrides(name, parent, known):
            return True
    return False


def files(room: str) -> list[Path]:
    """The files of a room."""
    return [path for path in TREES if path.is_relative_to(PACKAGE / room)]


def public(room: str) -> Iterator[Function]:
    """The public functions and methods of a room, without constructors and other magic methods but `__call__`."""
    for path in files(room):
        for node in TREES[path].body:
            owner = node if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else None
            for found in [node] if owner is None else owner.body:
                if isinstance(found, ast.FunctionDef) and (not found.name.startswith("_") or found.name == "__call__"):
                    is_overload = any("overload" in ast.unparse(mark) for mark in found.decorator_list)
                    if not is_overload:
                        yield Function(f"{path.relative_to(PACKAGE.parent)}:{found.lineno}: {found.name}", found, owner)


def annotations(node: ast.FunctionDef) -> Iterator[str]:
    """Annotations of the parameters and of the result."""
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg):
        if argument is not None and argument.annotation is not None:
            yield NO_ARRAYS.sub("", ast.unparse(argument.annotation))
    if node.returns is not None:
        yield NO_ARRAYS.sub("", ast.unparse(node.returns))


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a body, without those of functions within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from own_nodes(child)


def raises_errors(node: ast.FunctionDef) -> bool:
    """Whether the body raises an error of its own: `raise Name(...)`, except assertions and NotImplementedError."""
    for inner in own_nodes(node):
        if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call):
            name = ast.unparse(inner.exc.func)
            if name.endswith("Error") and name not in ("AssertionError", "NotImplementedError"):
                return True
    return False


@pytest.fixture(scope="module")
def known() -> dict[str, ast.ClassDef]:
    return classes()


@pytest.mark.parametrize("room", ROOMS)
def test_arrays_have_shapes(room: str, known: dict[str, ast.ClassDef]) -> None:
    missing = []
    for function in public(room):
        node, owner = function.node, function.owner
        if owner is not None and overrides(node.name, owner, known):
            continue
        docs = (ast.get_docstring(node) or "") + (ast.get_docstring(owner) or "" if node.name == "__call__" else "")
        if any(map(ARRAYS.search, annotations(node))) and not SHAPE.search(docs):
            missing.append(f"{function.where}: state the shapes of its arrays, as in `float32 [rows, classes]`")
    assert not missing, "\n" + "\n".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_fields_have_shapes(room: str) -> None:
    """Fields of public classes: the text below the field, or that of the class, states the shape."""
    missing = []
    for path in files(room):
        for owner in TREES[path].body:
            if not isinstance(owner, ast.ClassDef) or owner.name.startswith("_"):
                continue
            for node, below in zip(owner.body, [*owner.body[1:], None], strict=True):
                if isinstance(node, ast.AnnAssign) and ARRAYS.search(NO_ARRAYS.sub("", ast.unparse(node.annotation))):
                    value = below.value if isinstance(below, ast.Expr) else None
                    text = value.value if isinstance(value, ast.Constant) else ast.get_docstring(owner)
                    if not SHAPE.search(str(text)):
                        missing.append(f"{path.relative_to(PACKAGE.parent)}:{node.lineno}: {ast.unparse(node.target)}")
    assert not missing, "state the shapes of:\n" + "\n".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_errors_are_documented(room: str, known: dict[str, ast.ClassDef]) -> None:
    missing = []
    for function in public(room):
        node, owner = function.node, function.owner
        inherited = owner is not None and overrides(node.name, owner, known)
        if raises_errors(node) and not inherited and not ERRORS.search(ast.get_docstring(node) or ""):
            missing.append(f"{function.where}: state the errors that it raises, as in `Raises UserError for ...`")
    assert not missing, "\n" + "\n".join(missing)


@pytest.mark.parametrize(
    ("text", "shapes", "errors"),
    [
        ('def f(x: Tensor) -> int:\n    """Count."""', False, True),
        (
            'def f(x: Tensor) -> int:\n    """Count `x` [rows]. Raises ValueError."""\n    raise ValueError("x")',
            True,
            True,
        ),
        ('def f(x: int) -> int:\n    """Count."""\n    raise UserError("x")', True, False),
        ('def f(x: int) -> None:\n    """Count."""\n    def g():\n        raise UserError("x")', True, True),
    ],
)
def test_the_checks(text: str, shapes: bool, errors: bool) -> None:
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    docs = ast.get_docstring(node) or ""
    assert (not any(map(ARRAYS.search, annotations(node))) or bool(SHAPE.search(docs))) == shapes
    assert (not raises_errors(node) or bool(ERRORS.search(docs))) == errors
