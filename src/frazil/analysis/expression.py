"""Conditions on particles, written as in Python: `z0 > 1 and defocus_u_ang < 20000`.

Owns: the language and its evaluation over whole columns. Only the forms that are listed here are
evaluated, by walking the parsed text; nothing of it is executed. Does not own: where columns come
from (`frazil.analysis.columns`).

Forms: columns by name (`ctf/df1_A` and `alignments3D/shift[0]` too, or col("any name")), numbers,
texts, + - * / // % **, comparisons and chains of them, `in [..]`, and or not & | ~, and the
functions of FUNCTIONS. A comparison with an unknown value (NaN) is false.
"""

import ast
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError

_MAX_LENGTH = 10_000


@dataclass(frozen=True, eq=False)
class Words:
    """A column of text: codes (N,) int of `texts`; a code of -1 is unknown."""

    codes: NDArray[np.integer]
    texts: tuple[str, ...]

    def where(self, test: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Return (N,) whether the text of a row passes a test, which is asked once per text."""
        passed = np.array([*map(test, self.texts), False], np.bool_)
        return passed[self.codes]


Column = NDArray[Any] | Words


class Columns(Protocol):
    """Columns of N particles by name."""

    def get(self, name: str) -> Column | None:
        """Return a column (N,) or (N, k), or None when there is none of this name."""

    def names(self) -> list[str]:
        """Return the names there are, for messages."""

    def selected(self, path: str) -> NDArray[np.bool_]:
        """Return (N,) whether a row is in a selection file."""


def _over_known(statistic: Callable[..., Any]) -> Callable[..., np.float64]:
    """Return a statistic of the finite values of a column."""

    def over_known(values: NDArray[Any], *more: float) -> np.float64:
        finite = np.asarray(values, np.float64)
        finite = finite[np.isfinite(finite)]
        return np.float64(statistic(finite, *more)) if finite.size else np.float64(np.nan)

    return over_known


FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "sqrt": (1, np.sqrt),
    "log": (1, np.log),
    "exp": (1, np.exp),
    "floor": (1, np.floor),
    "hypot": (2, np.hypot),
    "isfinite": (1, np.isfinite),
    "isnan": (1, np.isnan),
    "quantile": (2, _over_known(np.quantile)),
    "mean": (1, _over_known(np.mean)),
    "median": (1, _over_known(np.median)),
    "std": (1, _over_known(np.std)),
    "min": (1, _over_known(np.min)),
    "max": (1, _over_known(np.max)),
}
"""Functions of numbers, with the number of their arguments; those from quantile on give one number
over all particles of the set whose value is known."""

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LOGIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
}
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def evaluate(text: str, columns: Columns, count: int) -> NDArray[np.bool_]:
    """Return (N,) whether each of `count` particles fulfils a condition.

    Raises
    ------
    InputError : what is not in the language, a column that is not there, or no condition; the
        message quotes the part.
    """
    if len(text) > _MAX_LENGTH:
        raise InputError(f"--where: longer than {_MAX_LENGTH} characters; use several steps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, on spellings such as '\\d'
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise InputError(f"--where '{text}': cannot be read ({reason})") from error
    walker = _Walker(text.strip(), columns)
    try:
        with np.errstate(all="ignore"):
            result = walker.value(tree.body)
    except RecursionError as error:
        raise InputError("--where: nested too deeply; use several steps") from error
    mask = np.asarray(result)
    if isinstance(result, Words | str) or mask.dtype != np.bool_:
        raise InputError(f"--where '{text}': is no condition; compare it with something")
    if mask.ndim > 1:
        raise InputError(f"--where '{text}': a column of several numbers; take one, as name[0]")
    return np.broadcast_to(mask, (count,))


class _Walker:
    """Evaluates a parsed expression; `value` goes by the kind of a node."""

    def __init__(self, text: str, columns: Columns) -> None:
        self.text = text
        self.columns = columns

    def value(self, node: ast.expr) -> Any:
        """Return the value of a node: a column, a number or a text."""
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.Name):
            return self._column(node.id, node)
        if isinstance(node, ast.Subscript):
            return self._element(node, self.value(node.value))
        if isinstance(node, ast.BoolOp):
            logic = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            found = self._truth(node.values[0])
            for part in node.values[1:]:
                found = logic(found, self._truth(part))
            return found
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._refused(node, "is not understood")

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, bool | int | float | str):
            return node.value
        raise self._refused(node, "is no number and no text")

    def _column(self, name: str, node: ast.expr) -> Any:
        column = self.columns.get(name)
        if column is None:
            raise self._refused(
                node, f"no such column; there are {', '.join(self.columns.names())}"
            )
        return column

    def _element(self, node: ast.Subscript, column: Any) -> Any:
        """Return one number per row of a column that holds several: name[0]."""
        place = node.slice
        if not isinstance(place, ast.Constant) or not isinstance(place.value, int):
            raise self._refused(node, "a whole number is wanted in the brackets")
        width = column.shape[1] if isinstance(column, np.ndarray) and column.ndim == 2 else 0
        if not 0 <= place.value < width:
            raise self._refused(node, f"the column has {width or 'one'} numbers per row")
        return column[:, place.value]

    def _unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not | ast.Invert):
            return np.logical_not(self._truth(node.operand))
        number = self._number(node.operand)
        return -number if isinstance(node.op, ast.USub) else number

    def _binary(self, node: ast.BinOp) -> Any:
        if isinstance(node.op, ast.Div):
            column = self._slashed(node)
            if column is not None:
                return column
        logic = _LOGIC.get(type(node.op))
        if logic is not None:
            return logic(self._truth(node.left), self._truth(node.right))
        arithmetic = _ARITHMETIC.get(type(node.op))
        if arithmetic is None:
            raise self._refused(node, "is not understood")
        left, right = self._number(node.left), self._number(node.right)
        if not isinstance(left, np.ndarray):  # Python's own powers may be endless
            left = np.float64(left)
        return arithmetic(left, right)

    def _slashed(self, node: ast.BinOp) -> Any:
        """Return the column "a/b" or an element of it, None when there is no such column."""
        right = node.right
        bare = right.value if isinstance(right, ast.Subscript) else right
        if not isinstance(node.left, ast.Name) or not isinstance(bare, ast.Name):
            return None
        column = self.columns.get(f"{node.left.id}/{bare.id}")
        if column is None or not isinstance(right, ast.Subscript):
            return column
        return self._element(right, column)

    def _compare(self, node: ast.Compare) -> Any:
        """Return the truth of `a < b < c`, or of `a in [..]`."""
        found: Any = np.True_
        left_node = node.left
        for operation, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(operation, ast.In | ast.NotIn):
                within = self._within(left_node, right_node)
                part = within if isinstance(operation, ast.In) else np.logical_not(within)
            elif type(operation) in _COMPARISONS:
                part = self._compared(operation, left_node, right_node)
            else:
                raise self._refused(node, "is not understood")
            found = np.logical_and(found, part)
            left_node = right_node
        return found

    def _compared(self, operation: ast.cmpop, left_node: ast.expr, right_node: ast.expr) -> Any:
        left, right = self.value(left_node), self.value(right_node)
        compare = _COMPARISONS[type(operation)]
        if isinstance(left, Words) and isinstance(right, str):
            return left.where(lambda text: bool(compare(text, right)))
        if isinstance(right, Words) and isinstance(left, str):
            return right.where(lambda text: bool(compare(left, text)))
        for node, value in ((left_node, left), (right_node, right)):
            if isinstance(value, Words | str):
                raise self._refused(node, "a text is compared with a text only, in quotes")
        return compare(left, right)

    def _within(self, left_node: ast.expr, right_node: ast.expr) -> Any:
        if not isinstance(right_node, ast.List | ast.Tuple | ast.Set):
            raise self._refused(right_node, "a list is wanted after `in`, as [1, 2]")
        wanted = [self.value(item) for item in right_node.elts]
        column = self.value(left_node)
        if any(isinstance(item, np.ndarray | Words) for item in wanted):
            raise self._refused(right_node, "plain numbers or texts are wanted in the list")
        if any(isinstance(item, str) for item in wanted) != isinstance(column, Words) and wanted:
            raise self._refused(left_node, "texts are looked for in a column of texts only")
        if isinstance(column, Words):
            return column.where(lambda text: text in wanted)
        found = np.zeros(np.shape(column), np.bool_)
        for item in wanted:
            found |= column == item
        return found

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords or name not in (*FUNCTIONS, "col", "sel", "like"):
            known = ", ".join((*FUNCTIONS, "col", "sel", "like"))
            raise self._refused(node, f"no such function; there are {known}")
        if name == "col":
            return self._column(self._text(node, 0, 1), node)
        if name == "sel":
            return self.columns.selected(self._text(node, 0, 1))
        if name == "like":
            pattern = self._text(node, 1, 2)
            column = self.value(node.args[0])
            if not isinstance(column, Words):
                raise self._refused(node, "like() is for columns of texts")
            return column.where(lambda text: fnmatchcase(text, pattern))
        count, function = FUNCTIONS[name]
        if len(node.args) != count:
            raise self._refused(node, f"{name} takes {count} value(s)")
        values = [self._number(argument) for argument in node.args]
        if name == "quantile" and not (np.ndim(values[1]) == 0 and 0 <= values[1] <= 1):
            raise self._refused(node, "a quantile is a number from 0 to 1")
        return function(*values)

    def _text(self, node: ast.Call, place: int, count: int) -> str:
        """Return an argument that must be a text in quotes."""
        argument = node.args[place] if len(node.args) == count else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return argument.value
        raise self._refused(node, "a text in quotes is wanted")

    def _number(self, node: ast.expr) -> Any:
        """Return a value that must be numbers; truth counts as 0 and 1, integers are widened."""
        value = self.value(node)
        if isinstance(value, Words | str):
            raise self._refused(node, "is text; a number is wanted")
        if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
            return value.astype(np.int64 if value.dtype.itemsize < 8 else np.float64)
        return value

    def _truth(self, node: ast.expr) -> Any:
        """Return a value that must be a condition."""
        value = self.value(node)
        if isinstance(value, Words | str) or np.asarray(value).dtype != np.bool_:
            raise self._refused(node, "is no condition; compare it with something")
        return value

    def _refused(self, node: ast.expr, why: str) -> InputError:
        part = ast.get_source_segment(self.text, node) or self.text
        return InputError(f"--where: '{part}': {why}")
