"""Check that images, poses, shifts and CTF of a store fit each other, before days of training.

Back-projects a random sample into half maps, and asks which changes to poses, shifts, CTF and sign
would predict held-out images better. Says that all looks right, or names the likely mistake with
its evidence and what mends it. Kept in the store's folder: preflight.json and preflight.png.

  frazil preflight particles.frz
  frazil preflight particles.frz --poses pose.pkl --ctf ctf.pkl --strict && frazil train_vae ...
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of preflight."""
    from frazil.engines.preflight.settings import PreflightSettings

    parser.add_argument("store", type=Path, metavar="STORE", help="a store, NAME.frz")
    parser.add_argument("--poses", metavar="PKL", help="poses, if not those of the store")
    parser.add_argument("--ctf", metavar="PKL", help="CTF, if not that of the store")
    parser.add_argument("--ind", type=Path, metavar="PKL", help="take these rows only")
    add_settings(parser, PreflightSettings)
    parser.add_argument("--strict", action="store_true", help="exit with code 2 on a mistake")


def run(args: argparse.Namespace) -> None:
    """Check, and say what was found."""
    from frazil.analysis.preflight import REPORT_NAME, checked
    from frazil.engines.preflight.settings import PreflightSettings
    from frazil.errors import InputError
    from frazil.io.identities import Identities
    from frazil.io.selection_file import read_rows
    from frazil.preprocess.inputs import join_pickles
    from frazil.store.reader import ParticleStore

    store = ParticleStore.open(args.store)
    if args.poses or args.ctf:
        store = store.with_rows(join_pickles(store.table(), args.poses, args.ctf).rows)
    selected = None
    if args.ind is not None:
        there = Identities.of(store.rows, store.sources)
        selected = read_rows(args.ind, store.count, lambda _: there, str(args.store), _say)
    report = checked(store, read_settings(args, PreflightSettings), selected, say=_say)
    for line in report.lines():
        _say(line)
    _say(f"preflight: figures in {args.store / REPORT_NAME} and preflight.png")
    if args.strict and report.verdict == "likely mistake":
        name = report.findings[0].name
        raise InputError(f"{args.store}: {name}; mend it, or leave --strict out")


def _say(line: str) -> None:
    """Print a line of the log at once."""
    print(line, flush=True)
