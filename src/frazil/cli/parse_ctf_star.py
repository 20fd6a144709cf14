"""Write ctf.pkl, (N, 9), from a RELION .star file.

frazil parse_ctf_star particles.star -o ctf.pkl --png ctf.png
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.io.parse_settings import CtfStarSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of parse_ctf_star."""
    add_settings(parser, CtfStarSettings)


def run(args: argparse.Namespace) -> None:
    """Write the CTF parameters and show those of the first particle."""
    from frazil.io.parse_ctf import write_ctf

    settings = read_settings(args, CtfStarSettings)
    parsed = write_ctf(settings)
    print("\n".join(parsed.lines))
    if settings.png:
        from frazil.analysis.ctf_plot import plot_ctf

        plot_ctf(Path(settings.png), parsed.parameters[0])
        print(f"wrote {settings.png}")
