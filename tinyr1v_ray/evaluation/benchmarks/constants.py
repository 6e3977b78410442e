"""Values of constant expressions in LaTeX, such as options have: a thousand times quicker than computer algebra."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

from tinyr1v_ray.evaluation.benchmarks.latex import without_latex

_MAX_CHARACTERS = 100
_MAX_EXPONENT = 20.0
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_REWRITTEN = (
    (re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\sqrt\[(\d)\]\{([^{}]*)\}"), r"((\2)**(1/\1))"),
    (re.compile(r"(?:\\sqrt|√)(?:\{([^{}]*)\}|(\d+|π)|\(([^()]*)\))"), r"((\1\2\3)**.5)"),
    (re.compile(r"\^\{([^{}]*)\}"), r"**(\1)"),
)
_PRODUCT = re.compile(r"(?<=[\d.)])(?=[(p])|(?<=[)i])(?=[\d.])|(?<=i)(?=\()")


def constant_value(text: str) -> float | None:
    r"""The value of an expression of numbers, roots, powers and pi; None for anything else.

    >>> constant_value(r"\sqrt{18}") == math.sqrt(18), constant_value(r"3\pi/2") == 1.5 * math.pi
    (True, True)
    >>> constant_value("2x"), constant_value("9**9**9"), constant_value("1/0")
    (None, None, None)
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    text = re.sub(r"(\\[dt]?frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", without_latex(text))
    while (inner := _rewritten(text)) != text:
        text = inner
    text = "".join(text.split()).replace("^", "**").replace("×", "*").replace("·", "*").replace("π", "pi")
    if not re.fullmatch(r"(?:[\d.()*/+-]|pi)+", text):
        return None
    try:
        value = _evaluated(ast.parse(_PRODUCT.sub("*", text), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    return value if math.isfinite(value) else None


def _rewritten(text: str) -> str:
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text


def _evaluated(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id="pi"):
            return math.pi
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluated(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            first, second = _evaluated(left), _evaluated(right)
            if isinstance(op, ast.Pow) and abs(second) > _MAX_EXPONENT:
                raise ValueError("exponent is too large")
            return _OPERATORS[type(op)](first, second)
    raise ValueError("no constant")
