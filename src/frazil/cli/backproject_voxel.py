"""Write the consensus map of particles with known poses, its half maps and their FSC.

PARTICLES is a store (.frz), or anything that `frazil preprocess` reads, which is packed first.
Written into OUTDIR: backproject.mrc, half_map_a.mrc, half_map_b.mrc, fsc-vals.txt, fsc-plot.png,
poses.png and at last backproject.json.

  frazil backproject_voxel particles.128.mrcs --poses pose.pkl --ctf ctf.pkl -o backproject
"""

import argparse
import shlex
import sys
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.errors import InputError, OutputExistsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of backproject_voxel."""
    from frazil.engines.backproject_settings import BackprojectInput, BackprojectSettings

    add_settings(parser, BackprojectInput)
    parser.add_argument("-o", "--outdir", type=Path, required=True, help="folder to write into")
    add_settings(parser, BackprojectSettings)
    parser.add_argument("--no-fsc-vals", action="store_true", help="half maps without their FSC")
    parser.add_argument("--no-preflight", action="store_true", help="do not check first")
    parser.add_argument("--overwrite", action="store_true", help="replace a map that is there")
    parser.add_argument("--lazy", action="store_true", help="accepted; particles always stream")


def run(args: argparse.Namespace) -> None:
    """Back-project and write."""
    import msgspec

    from frazil.analysis.consensus import write_consensus
    from frazil.analysis.preflight import show_preflight, used_rows
    from frazil.engines.backproject_input import open_loader, reconstruct
    from frazil.engines.backproject_settings import BackprojectInput, BackprojectSettings
    from frazil.store.budget import DiskNeed

    given, settings = (
        read_settings(args, BackprojectInput),
        read_settings(args, BackprojectSettings),
    )
    out: Path = args.outdir
    if (out / "backproject.json").exists() and not args.overwrite:
        raise OutputExistsError(f"{out}: holds a complete map; give --overwrite")
    if args.lazy:
        say("--lazy no longer changes anything: particles always stream")
    if out.is_file():
        raise InputError(f"-o {out}: is a file; give a folder")
    loader = open_loader(given, settings, out, say)
    written = DiskNeed((3 if settings.half_maps else 1) * 4 * loader.box_px**3, "maps", out)
    say(written.line())
    written.check()
    pixel_size_ang = loader.pixel_size_ang or 1.0
    if loader.pixel_size_ang is None:
        say("the pixel size is not known: 1 A/px is written, and resolutions are in pixels")
    if loader.columns.ctf_parameters is None:
        say("no CTF is known: images are taken as they are")
    if not args.no_preflight:
        show_preflight(loader.store, say, used_rows(loader))
    say(f"back-projecting {loader.row_count} images of {loader.box_px} px")
    result = reconstruct(loader, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "backproject.json").unlink(missing_ok=True)
    facts = {
        "program": "frazil backproject_voxel",
        "command": shlex.join(sys.argv),
        "input": msgspec.to_builtins(given),
        "settings": msgspec.to_builtins(settings),
        "box_px": loader.box_px,
    }
    rotations, with_fsc = loader.columns.rotations, not args.no_fsc_vals
    for line in write_consensus(result, pixel_size_ang, out, facts, rotations, with_fsc):
        say(line)


def say(line: str) -> None:
    """Print a line of the log at once."""
    print(line, flush=True)
