"""The mutations of a Python file: found in its syntax tree, written at their place, the rest of the file unchanged."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Mutation:
    """One change of one file: the bytes from `start` to `end` are replaced."""

    file: str
    line: int
    start: int
    end: int
    kind: str
    before: str
    after: str


def mutations_of(source: str, file: str) -> list[Mutation]:
    """Every mutation of a file's text, in the order of their places."""
    lines = source.encode().splitlines(keepends=True)
    offsets = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    whole, found = source.encode(), []
    for node, kind, after in _changes(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        found.append(Mutation(file, node.lineno, start, end, kind, whole[start:end].decode(), after))
    return sorted(set(found))


def mutated(source: str, mutation: Mutation) -> str:
    """The file's text with the mutation in it."""
    whole = source.encode()
    return (whole[: mutation.start] + mutation.after.encode() + whole[mutation.end :]).decode()


_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_Comparisons = dict[type[ast.cmpop], type[ast.cmpop]]
_BOUNDS: _Comparisons = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_NEGATED: _Comparisons = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
}  # fmt: skip


def _changes(tree: ast.Module) -> Iterator[tuple[Any, str, str]]:  # noqa: PLR0912  # a case for each kind
    """(node, kind, the text that takes its place)."""
    for node in _code(tree):
        match node:
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS and not _joins(op, left, right):
                yield node, "sign", f"({ast.unparse(ast.BinOp(left, _OPERATORS[type(op)](), right))})"
            case ast.AugAssign(target, op, value) if type(op) in _OPERATORS:
                yield node, "sign", ast.unparse(ast.AugAssign(target, _OPERATORS[type(op)](), value))
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                yield node, "sign", f"({ast.unparse(operand)})"
            case ast.UnaryOp(ast.Not(), operand):
                yield node, "check", f"({ast.unparse(operand)})"
            case ast.BoolOp(op, values):
                other = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield node, "check", f"({ast.unparse(ast.BoolOp(other, values))})"
            case ast.Compare(left, ops, rights):
                for kind, changes in (("bound", _BOUNDS), ("check", _NEGATED)):
                    for place, compared in enumerate(ops):
                        if type(compared) in changes:
                            changed = [*ops[:place], changes[type(compared)](), *ops[place + 1 :]]
                            yield node, kind, f"({ast.unparse(ast.Compare(left, changed, rights))})"
            case ast.If(test, body, []) if isinstance(body[-1], ast.Raise):
                yield test, "check", "False"
            case ast.keyword("axis" | "dim", value) if ast.unparse(value).lstrip("-").isdigit():
                yield value, "axis", "1" if ast.unparse(value) == "0" else "0"
            case ast.Call(ast.Attribute(_, "sum" | "mean" | "max" | "min" | "argmax"), [ast.Constant(axis) as value]):
                yield value, "axis", "1" if axis == 0 else "0"
            case ast.Constant(value) if type(value) is int:
                yield node, "bound", str(value + 1)


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run: no annotations, no texts, not `if TYPE_CHECKING`."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            yield node
            yield from _code(node)


def _joins(op: ast.operator, left: ast.expr, right: ast.expr) -> bool:
    """Whether an operator joins texts, or a folder and a name: another one there is a TypeError."""
    names = ast.unparse(right).isupper() or ast.unparse(right).endswith("name")
    texts = any(isinstance(side, ast.JoinedStr | ast.Constant) and "'" in ast.unparse(side) for side in (left, right))
    return texts or (isinstance(op, ast.Div) and names)
