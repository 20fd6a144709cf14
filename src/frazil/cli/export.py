"""Write a subset, or new columns, into the original .cs or .star of the particles.

Every other column and table stays as it was, rows in their order, pointing at the full-size
images. Particles are found by uid, or by stack and index in it. Beside OUT.cs an OUT.csg is
written, which cryoSPARC's Import Result Group takes. New columns are called frazil/NAME (.cs) and
_frazilNAME (.star).

  frazil export good.sel --into P12/J24/J24_particles.csg -o good.cs
  frazil export 00_vae --into particles.star --columns latents,cluster -o with_latents.star
  frazil export 00_vae --ind open.sel --into particles.cs -o open.cs
"""

import argparse

from frazil.cli.flags import add_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of export."""
    from frazil.analysis.select_settings import ExportSettings

    add_settings(parser, ExportSettings)


def run(args: argparse.Namespace) -> None:
    """Write the file."""
    from frazil.analysis.export import export
    from frazil.analysis.select_settings import ExportSettings

    export(read_settings(args, ExportSettings), lambda line: print(line, flush=True))
