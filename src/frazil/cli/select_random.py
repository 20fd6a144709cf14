"""Write the rows of a random subset of particles, sorted, as a pickle for --ind.

The same number of particles, size and seed give the subset of cryodrgn_utils select_random.

  frazil select_random 189043 -n 100000 -o ind.pkl
  frazil select_random particles.frz --frac 0.5 -o ind.pkl -s rest.pkl
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of select_random."""
    parser.add_argument("total", metavar="N", help="number of particles, a store, or their file")
    parser.add_argument("-o", type=Path, required=True, metavar="PKL", help="rows selected")
    parser.add_argument("-n", type=int, metavar="K", help="number of rows to select")
    parser.add_argument("--frac", type=float, metavar="F", help="part of the rows to select")
    parser.add_argument("-s", type=Path, metavar="PKL", help="also write the rows not selected")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Write the selection, and the rest when asked for."""
    from frazil.errors import InputError
    from frazil.io.outputs import check_output
    from frazil.io.pickles import write_pickle
    from frazil.io.selections import other_rows, random_rows

    total = _count(args.total)
    rows = random_rows(total, args.n, args.frac, args.seed)
    outputs = [(args.o, rows, "selected")]
    if args.s:
        if args.s.absolute() == args.o.absolute():
            raise InputError(f"-s {args.s}: is the file of -o; give it another name")
        outputs.append((args.s, other_rows(rows, total), "not selected"))
    for path, _, _ in outputs:
        check_output(path)
    print(f"{total} particles")
    for path, chosen, what in outputs:
        write_pickle(path, chosen)
        first = " ".join(map(str, chosen[:5]))
        print(f"{path}: {len(chosen)} rows {what}: {first}{' ...' if len(chosen) > 5 else ''}")


def _count(text: str) -> int:
    """Return a number of particles, as it is given or that of a store or file."""
    from frazil.io.images import open_particles
    from frazil.store.manifest import read_manifest

    if text.isdecimal():
        return int(text)
    path = Path(text)
    if path.is_dir() and ((path / "manifest.json").exists() or path.suffix == ".frz"):
        return read_manifest(path).particles
    return len(open_particles(path, poses=False))
