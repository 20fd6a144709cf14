"""Write ctf.pkl, (N, 9), from a cryoSPARC .cs file.

frazil parse_ctf_csparc particles.cs -o ctf.pkl --png ctf.png
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.io.parse_settings import CtfCsSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of parse_ctf_csparc."""
    add_settings(parser, CtfCsSettings)


def run(args: argparse.Namespace) -> None:
    """Write the CTF parameters and show those of the first particle."""
    from frazil.io.parse_ctf import write_ctf

    settings = read_settings(args, CtfCsSettings)
    parsed = write_ctf(settings)
    print("\n".join(parsed.lines))
    if settings.png:
        from frazil.analysis.ctf_plot import plot_ctf

        plot_ctf(Path(settings.png), parsed.parameters[0])
        print(f"wrote {settings.png}")
