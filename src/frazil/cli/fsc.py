"""Fourier shell correlation of two volumes (.mrc) of one box.

Prints shell, resolution (A) and FSC, and the resolution at which the curve FIRST falls below 0.5
and 0.143.

  frazil fsc half_map_a.mrc half_map_b.mrc --mask mask.mrc -o fsc.txt -p fsc.png
"""

import argparse
from pathlib import Path

from frazil.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of fsc."""
    parser.add_argument("volumes", nargs=2, type=Path, metavar="VOLUME", help="volumes to compare")
    parser.add_argument("--mask", type=Path, help="volume (0 to 1) that both are multiplied by")
    parser.add_argument(
        "--Apix",
        dest="pixel_size_ang",
        type=float,
        metavar="APIX",
        help="pixel size, A/px (default: that of the first volume)",
    )
    parser.add_argument("-o", "--outtxt", type=Path, metavar="TXT", help="write the curve here")
    parser.add_argument(
        "-p",
        "--plot",
        type=Path,
        nargs="?",
        const=Path("fsc.png"),
        metavar="PNG",
        help="draw the curve, into fsc.png unless named",
    )


def run(args: argparse.Namespace) -> None:
    """Print, write and draw the curve."""
    import torch

    from frazil.analysis.consensus import fsc_text, resolution_lines
    from frazil.analysis.plots import fsc_figure, save_figure
    from frazil.io.atomic import write_text_atomic
    from frazil.io.mrc import read_volume
    from frazil.metrics.fsc import fsc

    paths = [*args.volumes, *([args.mask] if args.mask else [])]
    found = [read_volume(path) for path in paths]
    box_px = found[0][0].shape[0]
    for path, (volume, _) in zip(paths, found, strict=True):
        if volume.shape[0] != box_px:
            raise InputError(
                f"{path}: box {volume.shape[0]} px, {paths[0]} has {box_px}; bring them to one box "
                "(frazil downsample --is-vol)"
            )
    pixel_size_ang = _pixel_size_ang(args, found[0][1], found[1][1])
    curve = fsc(*(torch.from_numpy(volume) for volume, _ in found))
    text = fsc_text(curve, box_px, pixel_size_ang)
    print(text, end="")
    print("\n".join(resolution_lines(curve, box_px, pixel_size_ang)))
    if args.outtxt:
        write_text_atomic(args.outtxt, text)
    if args.plot:
        title = f"{args.volumes[0].name} and {args.volumes[1].name}"
        save_figure(fsc_figure({"FSC": curve.numpy()}, box_px, pixel_size_ang, title), args.plot)


def _pixel_size_ang(args: argparse.Namespace, first: float, second: float) -> float:
    """Return --Apix, or the pixel size that the headers agree on; 1 A when they have none."""
    if args.pixel_size_ang is not None:
        if not args.pixel_size_ang > 0:
            raise InputError(f"--Apix {args.pixel_size_ang}: must be positive")
        return float(args.pixel_size_ang)
    if first > 0 and second > 0 and abs(first / second - 1) > 1e-3:
        raise InputError(
            f"{args.volumes[1]}: {second:.4f} A/px, {args.volumes[0]} has {first:.4f}; "
            "rescale one of them, or give --Apix if a header is wrong"
        )
    return first or second or 1.0
