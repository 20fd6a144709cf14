"""What flip_hand and invert_contrast share: the name of the copy, progress, and the report.

Owns: these. Does not own: the change (`frazil.io.mrc_edit`).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frazil.io.mrc import MrcHeader
    from frazil.io.mrc_edit import Sections


def write_changed(
    path: Path,
    out: Path | None,
    word: str,
    change: "Callable[[MrcHeader], Iterable[Sections]]",
) -> None:
    """Write a changed copy of an MRC file, beside it as NAME_`word` unless `out` says where."""
    from frazil.io.mrc import read_header
    from frazil.io.mrc_edit import write_like
    from frazil.io.outputs import check_output
    from frazil.preprocess.parallel import image_bar

    header = read_header(path)
    out = out or path.with_name(f"{path.stem}_{word}{path.suffix}")
    check_output(out, (".mrc", ".mrcs", ".map", ".st"), [path])
    with image_bar(header.nz, word, header.frame_bytes) as advance:
        bad = write_like(header, out, change(header), advance=advance)
    scale = f"{header.pixel_size_ang:.6g} A/px" if header.pixel_size_ang else "no pixel size"
    print(f"{out}: {header.nx} x {header.ny} x {header.nz}, {scale}")
    if bad:
        print(f"warning: {bad} of {header.nz} sections have values that are not finite")
