"""All small mistakes that can be made in a module, and what each makes of its text.

What is logged and what a sentence says is left alone, and so are annotations and what a module imports.
"""

import ast
import copy
import difflib
from typing import NamedTuple


class Mistake(NamedTuple):
    """One mistake: the *choice*-th that can be made at the *node*-th node of *module*."""

    module: str
    node: int
    choice: int


# The operators

_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


def alternatives(node):
    """What can be put in the place of *node*, each a mistake."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                yield _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield _with(node, op=_ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Constant):
        yield from map(ast.Constant, _other_constants(node.value))
    elif isinstance(node, ast.IfExp):
        yield from (_with(node, test=ast.Constant(value)) for value in (True, False))
    elif isinstance(node, ast.Call) and _order_matters(node):
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    if isinstance(node, ast.stmt | ast.ExceptHandler):
        yield from _other_statements(node)


def _other_constants(value):
    if isinstance(value, bool):
        return (not value,)
    return (value + 1, value - 1) if isinstance(value, int | float) else ()


def _other_statements(node):
    if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete | ast.Raise):
        yield ast.Pass()
    elif isinstance(node, ast.Return):
        if node.value is not None and ast.unparse(node.value) != "None":
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.If):
        yield from (_with(node, test=ast.Constant(value)) for value in (True, False))
    elif isinstance(node, ast.While):
        yield _with(node, test=ast.Constant(False))
    elif isinstance(node, ast.With) and all(item.optional_vars is None for item in node.items):
        yield ast.If(ast.Constant(True), node.body, [])
    elif isinstance(node, ast.ExceptHandler):
        yield _with(node, body=[ast.Raise()])
        if not isinstance(node.body[0], ast.Pass):
            yield _with(node, body=[ast.Pass()])
    elif isinstance(node, ast.Try) and node.finalbody:
        yield _with(node, finalbody=[ast.Pass()])
    elif isinstance(node, ast.Break | ast.Continue):
        yield ast.Pass()


def _with(node, **fields):
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _order_matters(call):
    if len(call.args) < 2 or ast.unparse(call.func) in ("max", "min"):
        return False
    return not any(isinstance(argument, ast.Starred) for argument in call.args[:2])


# All mistakes of a module


def places(tree):
    """Where a node can be replaced: (the node, what it is in, the field, the index in that or None)."""
    todo = [(tree, False)]
    while todo:
        parent, inside = todo.pop()
        inside = inside or isinstance(parent, ast.FunctionDef)
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "decorator_list", "bases", "args") and not isinstance(
                parent, ast.Call
            ):
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.AST) and not _is_only_told(node):
                    todo.append((node, inside))
                    if inside or not isinstance(node, ast.stmt):  # what a module defines, everybody misses
                        yield node, parent, field, index


def _is_only_told(node):
    """Docstrings, sentences and what is logged; and imports, which have no behaviour."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or ast.unparse(node).startswith(("logger.", "print("))
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def mistakes_in(module, root):
    """All that can be made in *module* of the clone *root*."""
    tree = ast.parse(source_of(module, root).read_text())
    return [
        Mistake(module, number, choice)
        for number, (node, *_) in enumerate(places(tree))
        for choice, _ in enumerate(alternatives(node))
    ]


def source_of(module, root):
    return root / "counter" / f"{module}.py"


def made(mistake, root):
    """The whole text of its module with the mistake, and the lines that differ."""
    tree = ast.parse(source_of(mistake.module, root).read_text())
    before = ast.unparse(tree)
    node, parent, field, index = [*places(tree)][mistake.node]
    other = [*alternatives(node)][mistake.choice]
    ast.copy_location(other, node)
    if index is None:
        setattr(parent, field, other)
    else:
        getattr(parent, field)[index] = other
    after = ast.unparse(ast.fix_missing_locations(tree))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = [
        line[0] + " " + line[1:].strip() for line in lines if not line.startswith(("---", "+++", "@@"))
    ]
    return after, f"{mistake.module}.py:{node.lineno}: " + "  ".join(changed)
