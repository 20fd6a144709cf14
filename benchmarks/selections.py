"""What choosing and writing back takes: 10 million rows of a .cs, 1.4 million of a .star.

Prints one JSON line per step: CPU and wall seconds and peak RSS of the whole command, and both as a
ratio to the yardstick of the same file: numpy on the whole array (.cs; what users write today), and
`cryodrgn_utils filter_star` (.star).

    python benchmarks/selections.py [--cs-rows 10000000] [--star-rows 1400000]
        [--cryodrgn-utils VENV/bin/cryodrgn_utils] [--folder DIR]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from frazil.io.atomic import npy_header
from star_rows import measured, write_file

_FIELDS = [
    ("uid", "<u8"),
    ("blob/path", "S60"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
    *((f"ctf/{name}", "<f4") for name in ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm")),
    *((f"ctf/{name}", "<f4") for name in ("amp_contrast", "phase_shift_rad", "scale", "bfactor")),
    ("alignments3D/split", "<u4"),
    ("alignments3D/shift", "<f4", (2,)),
    ("alignments3D/pose", "<f4", (3,)),
    ("alignments3D/psize_A", "<f4"),
    *((f"alignments3D/{name}", "<f4") for name in ("error", "error_min", "alpha", "weight")),
]
_BLOCK = 500_000
_NUMPY = """
import numpy as np
rows = np.load({path!r})
np.save({out!r}, rows[(rows["ctf/df1_A"] < 15000) & (rows["alignments3D/error"] > 0.2)])
"""
CONDITION = "ctf/df1_A < 15000 and alignments3D/error > 0.2"


def write_cs_file(path: Path, count: int) -> None:
    """Write a .cs of random numbers, block by block."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(_FIELDS)
    with path.open("wb") as file:
        file.write(npy_header(dtype, count))
        for first in range(0, count, _BLOCK):
            rows = np.zeros(min(_BLOCK, count - first), dtype)
            rows["uid"] = rng.integers(1, 1 << 63, len(rows), np.uint64)
            number = first + np.arange(len(rows))
            stacks = range(first // 250, int(number[-1]) // 250 + 1)
            names = [f"J12/extract/FoilHole_{k:07d}.mrc" for k in stacks]
            rows["blob/path"] = np.array(names, "S60")[number // 250 - first // 250]
            rows["blob/idx"] = number % 250
            rows["ctf/df1_A"] = rng.uniform(5000, 25000, len(rows))
            rows["alignments3D/error"] = rng.random(len(rows))
            file.write(rows.tobytes())


def report(
    step: str, rows: int, ours: dict[str, float], yardstick: dict[str, float] | None
) -> None:
    """Print one step."""
    ratios = (
        {}
        if yardstick is None
        else {
            f"{key}_ratio": round(ours[key] / yardstick[key], 3) for key in ("cpu_s", "peak_rss_gb")
        }
    )
    print(json.dumps({"step": step, "rows": rows, **ours, **ratios}), flush=True)


def main() -> None:
    """Write the files, run the commands, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cs-rows", type=int, default=10_000_000)
    parser.add_argument("--star-rows", type=int, default=1_400_000)
    parser.add_argument("--cryodrgn-utils", help="the cryodrgn_utils command")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    args = parser.parse_args()
    frazil = [sys.executable, "-m", "frazil.cli.main"]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        cs, chosen, out = (f"{folder}/{name}" for name in ("p.cs", "a.sel", "o.cs"))
        write_cs_file(Path(cs), args.cs_rows)
        naive = measured([sys.executable, "-c", _NUMPY.format(path=cs, out=f"{folder}/n.npy")])
        report("numpy: load, mask, save", args.cs_rows, naive, None)
        Path(folder, "n.npy").unlink()
        select = [*frazil, "select", cs]
        step = measured([*select, "--where", CONDITION, "-o", chosen])
        report("select .cs --where", args.cs_rows, step, naive)
        step = measured(
            [
                *select,
                "--and",
                chosen,
                "--frac",
                "0.5",
                "--stratify",
                "alignments3D/split",
                "-o",
                f"{folder}/b.sel",
            ]
        )
        report("select .cs --and SEL --frac --stratify", args.cs_rows, step, naive)
        step = measured([*frazil, "export", chosen, "--into", cs, "-o", out])
        report("export SEL --into .cs", args.cs_rows, step, naive)
        for name in (cs, out):
            Path(name).unlink()
        star, chosen, out = (f"{folder}/{name}" for name in ("p.star", "a.sel", "o.star"))
        write_file(Path(star), args.star_rows)
        select = [*frazil, "select", star, "--where", "_rlnDefocusU < median(_rlnDefocusU)"]
        pickled = measured([*select, "-o", f"{folder}/ind.pkl"])
        filtered = None
        if args.cryodrgn_utils:
            filter_star = [args.cryodrgn_utils, "filter_star", star, "--ind", f"{folder}/ind.pkl"]
            filtered = measured([*filter_star, "-o", f"{folder}/f.star"])
            report("cryodrgn_utils filter_star", args.star_rows, filtered, None)
        report("select .star -o ind.pkl", args.star_rows, pickled, filtered)
        report("select .star -o SEL", args.star_rows, measured([*select, "-o", chosen]), filtered)
        step = measured([*frazil, "export", chosen, "--into", star, "-o", out])
        report("export SEL --into .star", args.star_rows, step, filtered)
        columns = ["--columns", "defocus_ang,row", "--keep-all"]
        step = measured([*frazil, "export", star, "--into", star, "-o", out, *columns])
        report("export two columns --into .star", args.star_rows, step, filtered)


if __name__ == "__main__":
    main()
