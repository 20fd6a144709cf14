"""Choose particles by a condition on any column, and write them down by identity.

A .sel holds what identifies the particles and the rule that chose them: --ind of every command
takes it, whatever the order of the rows there. -o ind.pkl writes row numbers, as cryoDRGN's.

  frazil select particles.frz --list
  frazil select particles.frz --where 'defocus_ang < 20000 and not clipped' -o good.sel
  frazil select 00_vae --where 'cluster in [2, 5] and z0 > quantile(z0, 0.1)' -o open.sel
  frazil select particles.star --and good.sel --not junk.sel -n 100000 -o ind.pkl
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of select."""
    from frazil.analysis.select_settings import SelectSettings

    parser.add_argument("-o", type=Path, metavar="OUT", help=".sel, or rows: .pkl, .npy, .txt")
    parser.add_argument("-s", type=Path, metavar="OUT", help="also write those not chosen")
    parser.add_argument("--list", action="store_true", help="say which columns there are")
    add_settings(parser, SelectSettings)


def run(args: argparse.Namespace) -> None:
    """List the columns, or write the selection."""
    from frazil.analysis.select import select
    from frazil.analysis.select_settings import SelectSettings

    settings = read_settings(args, SelectSettings)
    if args.list:
        from frazil.analysis.column_list import column_lines

        print("\n".join(column_lines(settings)))
    elif args.o is None:
        raise InputError("give -o OUT.sel (or .pkl, .npy, .txt), or --list")
    else:
        select(settings, args.o, args.s, lambda line: print(line, flush=True))
