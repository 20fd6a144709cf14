"""Conditions on columns: what they mean, and that nothing of them is executed."""

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil.analysis.expression import Column, Words, evaluate
from frazil.errors import InputError

NAN = np.nan


class Three:
    """Columns of four particles."""

    columns: dict[str, Column]

    def __init__(self) -> None:
        self.columns = {
            "z0": np.array([1.0, 2.0, NAN, 4.0]),
            "n": np.array([1, 2, 3, 250], np.uint8),
            "uid": np.array([2**63 + 1, 2**63, 3, 4], np.uint64),
            "ctf/df1_A": np.array([4.0, 3.0, 2.0, 1.0], np.float32),
            "a/s": np.arange(8.0).reshape(4, 2),
            "group": Words(np.array([0, 1, 1, -1]), ("one", "two")),
            "bad": np.array([True, False, False, True]),
            "odd name": np.array([1.0, 0, 0, 0]),
        }

    def get(self, name: str) -> Column | None:
        return self.columns.get(name)

    def names(self) -> list[str]:
        return list(self.columns)

    def selected(self, path: str) -> Any:
        return np.array([path == "a.sel", False, False, True])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("z0 > 1", [1, 3]),
        ("1 <= z0 < 4", [0, 1]),
        ("not z0 > 1", [0, 2]),
        ("isfinite(z0) and not z0 > 1", [0]),
        ("z0 > 1 and n < 100 or bad", [0, 1, 3]),
        ("~bad & (n == 2)", [1]),
        ("bad | (n == 2)", [0, 1, 3]),
        ("n in [1, 250]", [0, 3]),
        ("n not in (1, 250)", [1, 2]),
        ("n in []", []),
        ("n + 10 > 255", [3]),
        ("-n < -2", [2, 3]),
        ("n % 2 == 0", [1, 3]),
        ("n // 2 == 1", [1, 2]),
        ("2 ** n == 4", [1]),
        ("ctf/df1_A > 2.5", [0, 1]),
        ("a/s[1] >= 5", [2, 3]),
        ("n / z0 > 1", [3]),
        ('col("odd name") == 1', [0]),
        ("group == 'two'", [1, 2]),
        ("'one' == group", [0]),
        ("group != 'two'", [0]),
        ("group in ['one', 'three']", [0]),
        ("like(group, 't*')", [1, 2]),
        ("uid == 9223372036854775809", [0]),
        ("uid in [3, 9223372036854775808]", [1, 2]),
        ("z0 >= quantile(z0, 0.5)", [1, 3]),
        ("z0 == max(z0) or z0 == min(z0)", [0, 3]),
        ("abs(z0 - mean(z0)) < std(z0)", [1]),
        ('sel("a.sel") and not bad', []),
        ('sel("b.sel")', [3]),
        ("True", [0, 1, 2, 3]),
        (r"like(group, '\d*') or bad", [0, 3]),
        ("hypot(z0, sqrt(n)) > 3 and log(exp(z0)) > 3", [3]),
    ],
)
def test_conditions_mean_what_python_means(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(evaluate(text, Three(), 4)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z1 > 1", r"'z1': no such column; there are z0, n,"),
        ("z0", "is no condition"),
        ("z0 and n", "'z0': is no condition"),
        ("not n", "'n': is no condition"),
        ("a/s > 1", "a column of several numbers"),
        ("z0[0] > 1", "has one numbers"),
        ("a/s[2] > 1", "has 2 numbers"),
        ("a/s[n] > 1", "a whole number is wanted"),
        ("group > 1", "a text is compared with a text only"),
        ("z0 == 'a'", "a text is compared with a text only"),
        ("group + 1 > 2", "is text; a number is wanted"),
        ("z0 in z0", "a list is wanted"),
        ("z0 in ['a']", "texts are looked for in a column of texts"),
        ("group in [1]", "texts are looked for in a column of texts"),
        ("z0 in [z0]", "plain numbers or texts"),
        ("quantile(z0, 2) > 1", "from 0 to 1"),
        ("quantile(z0) > 1", "takes 2 value"),
        ("like(z0, 'a')", "columns of texts"),
        ("sel(z0)", "a text in quotes"),
        ("z0 >", "cannot be read"),
        ("", "cannot be read"),
        ("z0 > 1\0", "cannot be read"),
        ("z0 is None", "is not understood"),
        ("z0 @ z0 > 1", "is not understood"),
        ("f'{z0}' == 'a'", "is not understood"),
        ("...", "is no number and no text"),
        ("(" * 500 + "z0 > 1" + ")" * 500, "cannot be read"),
        ("not " * 2000 + "bad", "nested too deeply|cannot be read"),
        ("z0 > " + "1" * 20_000, "longer than 10000"),
    ],
)
def test_what_is_not_understood_is_quoted(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        evaluate(text, Three(), 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x')",
        "z0.__class__",
        "(lambda: True)()",
        "[x for x in z0]",
        "exec('1')",
        "(y := 1) > 0",
        "abs.__globals__",
        "col.__self__",
        "getattr(z0, 'dtype')",
        "abs(*[z0]) > 1",
        "quantile(z0, q=0.5) > 1",
        "{z0: 1}",
        "z0 if bad else n",
        "b'x' == z0",
    ],
)
def test_nothing_is_executed(text: str) -> None:
    with pytest.raises(InputError):
        evaluate(text, Three(), 4)


def test_endless_powers_end() -> None:
    assert evaluate("9**9**9**9 > z0", Three(), 4).tolist() == [True, True, False, True]


NAMES = {"a": np.array([1.0, -2.0, 0.5]), "b": np.array([3.0, 1.0, -1.0])}


class Two:
    def get(self, name: str) -> Column | None:
        return NAMES.get(name)

    def names(self) -> list[str]:
        return list(NAMES)

    def selected(self, path: str) -> Any:
        raise AssertionError(path)


numbers = st.recursive(
    st.sampled_from(["a", "b", "1", "2.5"]),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
    max_leaves=5,
)
comparisons = st.tuples(numbers, st.sampled_from(["<", ">=", "=="]), numbers).map(" ".join)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=6,
)


@given(conditions)
def test_any_condition_is_that_of_python_row_by_row(text: str) -> None:
    expected = [
        bool(eval(text, {"a": float(a), "b": float(b)}))  # noqa: S307 (Python is the oracle)
        for a, b in zip(NAMES["a"], NAMES["b"], strict=True)
    ]
    assert evaluate(text, Two(), 3).tolist() == expected


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_an_error_of_one_line(text: str) -> None:
    try:
        result = evaluate(text, Three(), 4)
    except InputError:
        return
    assert result.shape == (4,) and result.dtype == np.bool_


def test_comparisons_cover_the_language() -> None:
    for sign, function in (("<", operator.lt), (">", operator.gt), ("!=", operator.ne)):
        found = evaluate(f"n {sign} 2", Three(), 4)
        assert found.tolist() == function(np.array([1, 2, 3, 250]), 2).tolist()
