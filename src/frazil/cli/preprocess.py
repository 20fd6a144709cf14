"""Pack particles into a store (-o X.frz), or write cryoDRGN's stacks (-o X.mrcs, X.txt).

Poses and CTF of a .star or .cs travel into the store; --poses and --ctf replace them. An
interrupted run goes on when the same command is given again.

  frazil preprocess particles.cs -D 128 -o particles.frz
  frazil preprocess particles.star --datadir DIR -D 128 -o data/128/particles.mrcs
  frazil preprocess particles.star -D 128 -o particles.frz --dask tcp://node1:8786
"""

import argparse
import shlex
import sys
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.errors import InputError
from frazil.preprocess.inputs import read_input
from frazil.preprocess.settings import InputSettings, PackSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of preprocess."""
    add_settings(parser, InputSettings)
    add_settings(parser, PackSettings)
    parser.add_argument("-o", required=True, metavar="OUT", help="X.frz, X.mrcs or X.txt")
    parser.add_argument("--no-preflight", action="store_true", help="do not check poses and CTF")
    parser.add_argument("-b", type=int, help="accepted; batches are sized by memory now")
    parser.add_argument(
        "--chunk", type=int, default=100_000, help="images per .ft.mrcs (default: 100000)"
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="pack by the workers of this Dask scheduler (tcp://HOST:PORT), who share the disk of "
        "-o; 'local' starts --max-threads of them here",
    )


def run(args: argparse.Namespace) -> None:
    """Write the store or the stacks."""
    from frazil.preprocess.cluster import connected
    from frazil.preprocess.fourier_stacks import write_fourier_stacks
    from frazil.preprocess.pipeline import pack
    from frazil.preprocess.plan import check_plan, plan_packing, settings_within
    from frazil.preprocess.report import describe_input, describe_plan, describe_store

    out, settings = Path(args.o), read_settings(args, PackSettings)
    if out.suffix not in (".frz", ".mrcs", ".txt"):
        raise InputError(f"-o {out}: the name must end in .frz, .mrcs or .txt")
    if args.chunk < 1:
        raise InputError(f"--chunk {args.chunk}: must be at least 1")
    if args.b is not None:
        print("-b no longer changes anything: batches are sized by memory")
    if out.suffix != ".frz":
        _check_stacks(settings, args.dask)
    table, account = read_input(read_settings(args, InputSettings))
    for line in describe_input(table, settings, account):
        print(line, flush=True)
    plan = plan_packing(table, out, settings, out.suffix != ".frz", in_parts=bool(args.dask))
    for line in describe_plan(plan):
        print(line, flush=True)
    check_plan(plan)
    settings = settings_within(plan, settings)
    if out.suffix == ".frz":
        out.parent.mkdir(parents=True, exist_ok=True)
        with connected(args.dask, settings.max_threads) as workers:
            command = shlex.join(sys.argv)
            store = pack(table, out, settings, account, command, workers=workers)
        print("\n".join(describe_store(store)), flush=True)
        if store.manifest.has_pose and not args.no_preflight:
            from frazil.analysis.preflight import show_preflight

            show_preflight(store, lambda line: print(line, flush=True))
    else:
        print(f"wrote {write_fourier_stacks(table, out, settings, args.chunk)}")


def _check_stacks(settings: PackSettings, dask: str | None) -> None:
    """Raise InputError when a flag was given that cryoDRGN's stacks have no room for."""
    flags = {"--drop-bad": settings.drop_bad, "--Apix": settings.pixel_size_ang, "--dask": dask}
    for flag, value in flags.items():
        if value:
            raise InputError(f"{flag}: is for a store; give -o X.frz, or leave it out")
