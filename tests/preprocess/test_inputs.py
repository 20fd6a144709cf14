"""What is known of the stacks that are packed."""

from pathlib import Path

import pytest

from frazil.errors import MissingFileError
from frazil.preprocess.inputs import source_file


def test_a_stack_that_vanished_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(bytes(7))
    assert (source_file(str(path)).path, source_file(str(path)).size_bytes) == (str(path), 7)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"a\.mrcs: is not there any more; put it back"):
        source_file(str(path))
