"""Rows that go in are dropped for a reason or come out; nothing else can be written down."""

import pytest

from frazil.io.accounts import RowAccount


def test_an_account_that_closes_is_one_line() -> None:
    account = RowAccount(20, 4, {"--ind": 15, "non-finite": 1, "--first": 0})
    assert account.line("used") == "rows: 20 in, 16 dropped (--ind 15, non-finite 1), 4 used"
    assert RowAccount.all_of(3).line() == "rows: 3 in, 0 dropped, 3 out"
    assert account.dropped == {"--ind": 15, "non-finite": 1}


@pytest.mark.parametrize(
    ("rows_in", "rows_out", "dropped"),
    [(20, 4, {"--ind": 15}), (20, 5, {}), (3, 4, {"--ind": -1}), (-1, -1, {}), (4, 4, {"a": 1})],
)
def test_a_silent_drop_is_an_error_of_ours(
    rows_in: int, rows_out: int, dropped: dict[str, int]
) -> None:
    with pytest.raises(RuntimeError, match="do not add up"):
        RowAccount(rows_in, rows_out, dropped)
