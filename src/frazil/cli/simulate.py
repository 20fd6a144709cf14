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

    settings = read_settings(args, SimulateSettings)
    report = simulate_dataset(settings, args.out)
    print(
        f"{args.out}: {settings.num} images of {settings.box_px} px, "
        f"{report['pixel_size_ang']:g} A/px, noise deviation {report['noise_std']:.4g}"
    )
    for note in report["notes"]:
        print(f"note: {note}")
