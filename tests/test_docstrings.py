"""Docstrings of public names state shapes, dtypes, units, errors, the meaning of None, and sources.

ruff checks that docstrings exist (rules D). The tests read annotations, in every package:

- A function with an array among its parameters or results names a shape, as in `float32 [rows, classes]`, or refers to
  one ("same shape", "as `kl_rows`"), and the dtype unless an annotation has it: "any float dtype", "dtype of `x`". A
  method that overrides another may leave both to it.
- A function that raises an error of its own names it.
- A number that is a physical quantity has its unit in its name (`start_s`) or in its text, an array too.
- Every option of a command or of a class that a configuration names has a text, a number its unit.
- A field that may be None states what None means.
- Published methods (panels, losses, pools, metrics, ...) name their source, or state a formula.

Texts are compared with lists of words: a text that passes may still be wrong, a text that fails lacks the word.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hms_dist"
ROOMS = ("top", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
"""Packages whose public names are checked; `top`: the files above them."""
TEXTS = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
ALIASES = {path: dict(re.findall(r"^(\w+) = (NDArray\[.*\])$", text, re.MULTILINE)) for path, text in TEXTS.items()}
"""Names of array types, by the file that defines them."""
ARRAYS = re.compile(rf"\b(?:NDArray|Tensor|ndarray|{'|'.join(sorted(set().union(*ALIASES.values())))})\b")
"""Names in annotations that mean an array."""
WITH_DTYPE = re.compile(r"\bNDArray\[np\.(?:bool_|object_|u?int\d+|float\d+|complex\d+)\]")
NO_ARRAYS = re.compile(r"\w+\[str, Tensor\]|Callable\[.*\]|[Tt]ype\[\w+\]")
"""Parts of annotations that have no shape: state dicts, functions, classes."""
REFERENCE = r"\b(?:as|[Ss]ee)\s(?:those of )?`\w[\w.]*`"
SHAPE = re.compile(
    rf"\[[^\]]+\]|\((?:batch|rows|heads|channels|classes)[^)]*\)|(?i:same shape)|spec\.shape|any shape|{REFERENCE}"
)
"""A shape in brackets, or a reference to one."""
DTYPE = re.compile(rf"\b(?:bool|u?int(?:8|16|32|64)|b?float(?:16|32|64)|dtypes?)\b|{REFERENCE}")
"""A dtype, a kind of dtype ("any float dtype", "dtype of `x`"), or a reference to one."""
ERRORS = re.compile(r"\b[Rr]aises?\b|\bSee `\w+`")
NUMBER = re.compile(r"\b(?:int|float)\b")
QUANTITIES = {
    "amplitude", "area", "bandwidth", "cutoff", "delay", "deviation", "duration", "frequency", "gap", "height",
    "interval", "latency", "length", "margin", "memory", "offset", "pause", "period", "power", "rate", "rms", "shift",
    "spacing", "start", "stop", "timeout", "voltage", "width",
}  # fmt: skip
"""Final words of names of numbers that have a unit."""
SIGNALS = {"eeg", "signal", "signals", "power", "density", "spectrogram", "amplitude", "recording"}
"""Final words of names of arrays that have a unit, in SIGNAL_ROOMS."""
SIGNAL_ROOMS = ("api", "imports", "panels", "recordings", "signals")
SIGNAL_UNIT = re.compile(
    r"\b(?:[Mm]icrovolts?|uV|[Vv]olts?|[Dd]ecibels?|dB|units?|full scale|at most (?:about|of order) 1)\b"
)
"""The unit of a signal, "same unit", "any unit"."""
UNIT_IN_NAME = re.compile(
    r"^num_|_(?:s|hz|uv|db|deg|ln|mb|gb|bytes|samples|frames|rows|columns|blocks|steps|epochs?|votes|cycles|days|hours)$"
)
UNIT = re.compile(
    r"\b(?:Hz|uV|dB|ms|ln|[kMG]i?B|GPUs|CPUs)\b|\b0 to 1\b|[\[(]0, 1[\])]|%"
    r"|\b(?i:seconds?|minutes?|hours?|hertz|microvolts?|volts?|decibels?|bytes|pixels?|samples?|rows?|columns?|frames?"
    r"|bins?|steps?|epochs?|batch(?:es)?|evaluations|passes|degrees|periods?|nats|votes|tokens|blocks?|units?|threads"
    r"|processes|shares?|fractions?|probability|factors?|relative|ratio|weights?|exponent|levels?|numbers?|index"
    r"|seeds?|folds?|decay|order|parameter|learning rate|momentum|norm|full scale)\b"
)
"""A unit, or a kind of number that has none."""
SOURCE = re.compile(
    r"\b(?:17|18|19|20)\d\d\b|\b\d+(?:st|nd|rd|th) place|[\w)|](?: [=*/] |\^)[\w(|]|\b(?:ln|log|sqrt|KL)\(|\bln \w\b"
    r"|\b(?:albumentations|timm|torch|numpy|scipy|SciPy|librosa|OpenCV|sklearn|Kaggle|Slaney|Butterworth|Mallat|RFCX"
    r"|course report|bird-call detector|wavelet ablation|two-stage|public baseline|public EEG|published|maxc303)\b"
)
"""A paper's year, a system, a source of docs/sources.md, or a formula."""
TABLES = ("LOSSES", "METHODS", "RULES", "SCHEDULES", "SELECTIONS")
"""Tables of published methods: their functions have sources."""
PUBLISHED = ("results/metrics.py", "results/yes_no.py", "results/bootstrap.py", "signals/")
"""Files whose public functions have sources."""
BASES = ("Panel", "Normaliser", "Augmentation")
"""Classes whose derived classes have sources."""
NO_SOURCE = {
    "SignalReverse": "a mirror image",
    "Waveform": "the samples themselves",
    "_all": "no rule",
    "_class_balanced": "random undersampling",
    "_constant": "no schedule",
}
"""Name -> what it is, instead of a method with a source."""


@dataclass(frozen=True)
class Function:
    """A public function or method."""

    where: str
    path: Path
    node: ast.FunctionDef
    owner: ast.ClassDef | None

    @property
    def texts(self) -> str:
        """Its text; of a constructor and of `__call__`, that of the class too."""
        own = ast.get_docstring(self.node) or ""
        return f"{own} {ast.get_docstring(self.owner) or ''}" if self.owner and self.node.name.startswith("_") else own


@dataclass(frozen=True)
class Field:
    """A field of a class, with the text below it or, without one, that of the class."""

    where: str
    name: str
    annotation: str
    has_text: bool
    text: str


@cache
def files(room: str) -> list[Path]:
    """The files of a room."""
    return [
        path for path in TREES if (path.parent == PACKAGE if room == "top" else path.is_relative_to(PACKAGE / room))
    ]


@cache
def public_classes(path: Path) -> list[ast.ClassDef]:
    """The public classes of a file."""
    return [node for node in TREES[path].body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def functions(path: Path) -> Iterator[Function]:
    """The public functions and methods of a file, without magic methods except `__init__` and `__call__`."""
    of_classes = [(node, owner) for owner in public_classes(path) for node in owner.body]
    for node, owner in [*((node, None) for node in TREES[path].body), *of_classes]:
        if not isinstance(node, ast.FunctionDef) or any("overload" in ast.unparse(of) for of in node.decorator_list):
            continue
        if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
            yield Function(f"{where(path, node)}: {node.name}", path, node, owner)


@cache
def fields(path: Path, owner: ast.ClassDef) -> list[Field]:
    """The fields of a class, without class variables."""
    found = []
    for node, below in zip(owner.body, [*owner.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            value = below.value if isinstance(below, ast.Expr) else None
            has_text = isinstance(value, ast.Constant)
            text = str(value.value) if isinstance(value, ast.Constant) else ast.get_docstring(owner) or ""
            name = ast.unparse(node.target)
            found.append(Field(f"{where(path, node)}: {name}", name, ast.unparse(node.annotation), has_text, text))
    return found


def where(path: Path, node: ast.stmt) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"


@cache
def imports(path: Path) -> dict[str, tuple[Path, str]]:
    """The names that a file imports from the package: file and name there."""
    found = {}
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hms_dist."):
            stem = PACKAGE.parent / str(node.module).replace(".", "/")
            for name in node.names:
                found[name.asname or name.name] = (stem.with_suffix(".py"), name.name)
    return {name: (path, original) for name, (path, original) in found.items() if path in TREES}


@cache
def class_of(path: Path, name: str) -> tuple[Path, ast.ClassDef] | None:
    """The class of the package that a file calls `name`, with its file."""
    for node in TREES[path].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return path, node
    return class_of(*imports(path)[name]) if name in imports(path) else None


@cache
def bases(path: Path, name: str) -> dict[str, tuple[Path, ast.ClassDef]]:
    """The classes of the package from which a class of a file is derived, directly or not, by name."""
    found = class_of(path, name)
    above = [ast.unparse(base).split(".")[-1].split("[")[0] for base in found[1].bases] if found else []
    result: dict[str, tuple[Path, ast.ClassDef]] = {}
    for base in above:
        parent = class_of(found[0], base) if found else None
        if parent is not None:
            result |= {base: parent, **bases(parent[0], parent[1].name)}
    return result


def overrides(function: Function) -> bool:
    """Whether a class from which a method's class is derived has a method of this name."""
    above = bases(function.path, function.owner.name).values() if function.owner is not None else ()
    nodes = [node for _, owner in above for node in owner.body]
    return any(isinstance(node, ast.FunctionDef) and node.name == function.node.name for node in nodes)


@cache
def options() -> dict[str, tuple[Path, ast.ClassDef]]:
    """The dataclasses of options: of commands, of what configurations name, and of fields of these."""
    table = ast.parse(TEXTS[PACKAGE / "commands/table.py"])
    names = [node for node in ast.walk(table) if isinstance(node, ast.Tuple) and len(node.elts) == 3]
    commands = [[value.value for value in node.elts if isinstance(value, ast.Constant)] for node in names]
    todo = [class_of(PACKAGE.parent / f"{row[0].replace('.', '/')}.py", row[1]) for row in commands if len(row) == 3]
    todo += derived()
    found: dict[str, tuple[Path, ast.ClassDef]] = {}
    while todo:
        item = todo.pop()
        if item is not None and f"{item[0]}:{item[1].name}" not in found:
            path, owner = item
            if any("dataclass" in ast.unparse(mark) for mark in owner.decorator_list):
                found[f"{path}:{owner.name}"] = item
                words = [word for field in fields(path, owner) for word in re.findall(r"\w+", field.annotation)]
                todo += [*bases(path, owner.name).values(), *(class_of(path, word) for word in words)]
    return found


@cache
def derived() -> list[tuple[Path, ast.ClassDef]]:
    """The classes derived from BASES, which configurations name."""
    every = [(path, owner) for path in TREES for owner in public_classes(path)]
    return [(path, owner) for path, owner in every if set(BASES) & set(bases(path, owner.name))]


def annotations(node: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Names and annotations of the parameters, and of the result without a name."""
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg):
        if argument is not None and argument.annotation is not None:
            yield argument.arg, ast.unparse(argument.annotation)
    if node.returns is not None:
        yield "", ast.unparse(node.returns)


@cache
def array_names(path: Path) -> dict[str, str]:
    """The names of array types that a file defines or imports."""
    imported = {name: ALIASES[file].get(there) for name, (file, there) in imports(path).items()}
    return ALIASES[path] | {name: alias for name, alias in imported.items() if alias is not None}


def lacks_of_arrays(annotated: Iterable[str], text: str, path: Path | None = None) -> list[str]:
    """List the missing facts about the arrays of some annotations: "shape", "dtype".

    Kernels compute any float dtype that the operators around them accept; those state it.
    """
    names = array_names(path) if path else {}
    arrays = [part for part in (NO_ARRAYS.sub("", annotation) for annotation in annotated) if ARRAYS.search(part)]
    plain = [re.sub(r"\b\w+\b", lambda word: names.get(word[0], word[0]), part) for part in arrays]
    unclear = any(ARRAYS.search(WITH_DTYPE.sub("", part)) for part in plain)
    missing = ["shape"] if arrays and not SHAPE.search(text) else []
    is_kernel = path is not None and "kernel" in path.relative_to(PACKAGE).as_posix()
    return [*missing, "dtype"] if unclear and not is_kernel and not DTYPE.search(text) else missing


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


def lacks_unit(name: str, annotation: str, text: str, any_number: bool = False) -> bool:
    """Whether a number, if its name is that of a quantity or `any_number`, has no unit in its name or text."""
    is_number = NUMBER.search(annotation) and "str" not in annotation and "Callable" not in annotation
    asked = any_number or name.rsplit("_", 1)[-1] in QUANTITIES
    is_stated = UNIT_IN_NAME.search(name) or UNIT.search(text) or re.match("See `", text)
    return bool(is_number and asked and not is_stated)


@pytest.mark.parametrize("room", ROOMS)
def test_arrays_have_shapes_and_dtypes(room: str) -> None:
    missing = []
    for path in files(room):
        for function in functions(path):
            if not overrides(function) and function.node.name != "__init__":
                found = [annotation for _, annotation in annotations(function.node)]
                lacks = lacks_of_arrays(found, function.texts, path)
                missing += [f"{function.where}: {' and '.join(lacks)}"] if lacks else []
        for owner in public_classes(path):
            for field in fields(path, owner):
                lacks = lacks_of_arrays([field.annotation], field.text, path)
                missing += [f"{field.where}: {' and '.join(lacks)}"] if lacks else []
    assert not missing, "state, as in `float32 [rows, classes]` or `any float dtype`:\n" + "\n".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_errors_are_documented(room: str) -> None:
    found = [function for path in files(room) for function in functions(path) if raises_errors(function.node)]
    missing = [
        function.where
        for function in found
        if not overrides(function) and function.node.name != "__init__" and not ERRORS.search(function.texts)
    ]
    assert not missing, "state the errors, as in `Raises UserError for ...`:\n" + "\n".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_quantities_have_units(room: str) -> None:
    missing = []
    for path in files(room):
        for function in functions(path):
            texts = f"{ast.get_docstring(function.node)} {ast.get_docstring(function.owner) if function.owner else ''}"
            file_text = ast.get_docstring(TREES[path])
            for name, annotation in annotations(function.node):
                is_signal = room in SIGNAL_ROOMS and name.rsplit("_", 1)[-1] in SIGNALS and ARRAYS.search(annotation)
                lacks_its = bool(is_signal) and not SIGNAL_UNIT.search(f"{texts} {file_text}")
                if not overrides(function) and (lacks_its or lacks_unit(name, annotation, texts)):
                    missing.append(f"{function.where}({name})")
        for owner in public_classes(path):
            missing += [f.where for f in fields(path, owner) if lacks_unit(f.name, f.annotation, f.text)]
    assert not missing, "state the units, in names (`start_s`) or texts:\n" + "\n".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_options_have_texts_and_units(room: str) -> None:
    missing, here = [], set(files(room))
    for path, owner in options().values():
        for field in fields(path, owner) if path in here else ():
            if not field.has_text:
                missing.append(f"{field.where}: a text")
            elif lacks_unit(field.name, field.annotation, field.text, any_number=True):
                missing.append(f"{field.where}: its unit")
    assert not missing, "state:\n" + "\n".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_none_has_a_meaning(room: str) -> None:
    """Every option, and every field of another class that has a text of its own."""
    every = [field for path in files(room) for owner in public_classes(path) for field in fields(path, owner)]
    optional = [field for field in every if field.has_text and re.search(r"\bNone\b", field.annotation)]
    missing = [field.where for field in optional if not re.search(r"\bNone\b|\b[Ss]ee `", field.text)]
    assert not missing, "state the meaning of None:\n" + "\n".join(missing)


def published() -> Iterator[tuple[Path, ast.ClassDef | ast.FunctionDef]]:
    """Methods that have sources, with their files."""
    above = {base for path, owner in derived() for base in bases(path, owner.name)}
    yield from ((path, owner) for path, owner in derived() if owner.name not in above)
    for path, tree in TREES.items():
        if path.relative_to(PACKAGE).as_posix().startswith(PUBLISHED):
            yield from ((path, function.node) for function in functions(path) if function.owner is None)
        used = set()
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if ast.unparse(target) in TABLES:
                    used |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
        yield from ((path, node) for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in used)


def test_published_methods_have_sources() -> None:
    missing, used = [], set()
    for path, node in published():
        texts = " ".join(f"{ast.get_docstring(node)} {ast.get_docstring(TREES[path])}".split())
        if not SOURCE.search(re.sub(r"\[[^]]*\]", "", texts)):  # without shapes: [frames, n / 2] is not a formula
            used |= {node.name} & set(NO_SOURCE)
            missing += [] if node.name in NO_SOURCE else [f"{where(path, node)}: {node.name}"]
    assert not missing, "name the paper, the system or a source of docs/sources.md:\n" + "\n".join(missing)
    assert used == set(NO_SOURCE), "an exception that nothing needs"


@pytest.mark.parametrize(
    ("text", "arrays", "errors"),
    [
        ('def f(x: Tensor) -> int:\n    """Count."""', ["shape", "dtype"], True),
        ('def f(x: NDArray[np.int64]) -> int:\n    """Count `x` [rows]."""', [], True),
        ('def f(x: NDArray[np.integer]) -> int:\n    """Count `x` [rows]."""', ["dtype"], True),
        ('def f(x: NDArray[np.integer]) -> int:\n    """Count `x` [rows], any integer dtype."""', [], True),
        ('def f(x: Tensor) -> int:\n    """Shapes as `g`; raises."""\n    raise ValueError("x")', [], True),
        ('def f(x: int) -> int:\n    """Count."""\n    raise UserError("x")', [], False),
        ('def f(x: int) -> None:\n    """Count."""\n    def g():\n        raise UserError("x")', [], True),
    ],
)
def test_the_checks(text: str, arrays: list[str], errors: bool) -> None:
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    docs = ast.get_docstring(node) or ""
    assert lacks_of_arrays([annotation for _, annotation in annotations(node)], docs) == arrays
    assert (not raises_errors(node) or bool(ERRORS.search(docs))) == errors


@pytest.mark.parametrize(
    ("name", "annotation", "text", "any_number", "lacks"),
    [
        ("start_s", "float", "Start.", False, False),
        ("start", "float", "Start.", False, True),
        ("start", "float | None", "Start, seconds.", False, False),
        ("start", "str", "Start.", False, False),
        ("bias", "float", "Added.", False, False),
        ("bias", "float", "Added.", True, True),
        ("bias", "float", "Share added.", True, False),
    ],
)
def test_the_check_of_units(name: str, annotation: str, text: str, any_number: bool, lacks: bool) -> None:
    assert lacks_unit(name, annotation, text, any_number) == lacks


def test_options_are_found() -> None:
    found = {owner.name for _, owner in options().values()}
    assert {"TrainConfig", "OptimConfig", "Render", "Traces", "CutMix", "QuantileLog10"} <= found
    assert "Batch" not in found
