"""Simulate a particle set with known truth, from an atomic structure or a built-in molecule.

Writes into the folder OUT: particles.mrcs, particles.star (RELION 3.1), particles.cs (cryoSPARC),
poses.pkl and ctf.pkl (cryoDRGN), truth/ (volumes, conformations, poses) and simulation.json.
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.simulate.settings import SimulateSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `frazil simulate`."""
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    add_settings(parser, SimulateSettings)


def run(args: argparse.Namespace) -> None:
    """Write the set and say what it is."""
    from frazil.simulate.dataset import simulate_dataset
    from frazil.store.budget import DiskNeed

    settings = read_settings(args, SimulateSettings)
    stacks = 4 * settings.num * settings.box_px**2
    what = f"{settings.num} images of {settings.box_px} px"
    need = DiskNeed(stacks, what, args.out, "give a smaller -n or -D")
    print(need.line(), flush=True)
    if not args.out.exists():  # else what is replaced there makes room, too
        need.check()
    report = simulate_dataset(settings, args.out)
    print(
        f"{args.out}: {settings.num} images of {settings.box_px} px, "
        f"{report['pixel_size_ang']:g} A/px, noise deviation {report['noise_std']:.4g}"
    )
    for note in report["notes"]:
        print(f"note: {note}")
