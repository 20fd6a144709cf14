"""The run-time type checker that the jaxtyping import hook puts on the pure layers."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check argument and result types of one function (an int passes where a float is asked)."""
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
