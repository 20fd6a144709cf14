"""Say what is in particle files, stores, volumes, stacks, pickles and run folders.

frazil info particles.star --datadir DIR
frazil info particles.frz pose.pkl map.mrc --json
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.io.paths import PlaceSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of info."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    add_settings(parser, PlaceSettings)
    parser.add_argument("--json", action="store_true", help="a list of objects, for machines")


def run(args: argparse.Namespace) -> None:
    """Print the facts of each path."""
    import json

    from frazil.analysis.info import describe

    places = read_settings(args, PlaceSettings).places()
    if args.json:
        facts = [describe(path, places).to_json() for path in args.paths]
        print(json.dumps(facts, indent=1))
        return
    for number, path in enumerate(args.paths):
        if number:
            print()
        print("\n".join(describe(path, places).lines()))
