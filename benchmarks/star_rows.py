"""How long a STAR file of 1.4 million particles takes to read, and what it holds in memory.

Prints one JSON line per reader: CPU and wall seconds, peak RSS, and both as a ratio to the first
yardstick of the run. Ours gives the whole particle table (poses, shifts, CTF, image names, groups),
and is run in between the others, twice.

    python benchmarks/star_rows.py [--rows 1400000] [--starfile VENV/bin/python]
        [--cryodrgn VENV/bin/cryodrgn] [--folder DIR]

`--starfile` is an interpreter with starfile and pandas. cryoDRGN reads the file twice, once for
poses and once for CTF; its line is the sum of both commands.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_LABELS = (
    *("ImageName", "MicrographName", "CoordinateX", "CoordinateY", "OpticsGroup", "DefocusU"),
    *("DefocusV", "DefocusAngle", "PhaseShift", "CtfBfactor", "CtfMaxResolution", "AngleRot"),
    *("AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "ClassNumber", "RandomSubset"),
    *("NormCorrection", "LogLikeliContribution", "MaxValueProbDistribution", "GroupNumber"),
    *("NrOfSignificantSamples", "AutopickFigureOfMerit", "CtfFigureOfMerit", "GroupName"),
    *("AnglePsiPrior", "AngleTiltPrior", "OriginXPriorAngst", "OriginYPriorAngst"),
)
_OPTICS = (
    "# version 50001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n"
    "_rlnVoltage #3\n_rlnSphericalAberration #4\n_rlnAmplitudeContrast #5\n"
    "_rlnImagePixelSize #6\n_rlnImageSize #7\n"
    "1 one 300.0 2.7 0.1 1.06 256\n2 two 300.0 2.7 0.1 1.06 256\n\n"
)
_TEXTS = ("ImageName", "MicrographName", "GroupName")
_WHOLE = ("OpticsGroup", "ClassNumber", "RandomSubset", "GroupNumber", "NrOfSignificantSamples")
_BLOCK = 10_000


def write_file(path: Path, rows: int) -> None:
    """Write a RELION 5 file with the 30 columns of a refinement; numbers repeat, names do not."""
    rng = np.random.default_rng(0)
    numbers = {name: _numbers(name, rng) for name in _LABELS if name not in _TEXTS}
    with path.open("w") as file:
        labels = "".join(f"_rln{name} #{n}\n" for n, name in enumerate(_LABELS, 1))
        file.write(f"{_OPTICS}# version 50001\n\ndata_particles\n\nloop_\n{labels}")
        for first in range(0, rows, _BLOCK):
            texts = {name: [_text(name, first + row) for row in range(_BLOCK)] for name in _TEXTS}
            columns = [texts.get(name) or numbers[name] for name in _LABELS]
            lines = [" ".join(row) for row in zip(*columns, strict=True)]
            file.write("\n".join(lines[: rows - first]) + "\n")


def _numbers(name: str, rng: np.random.Generator) -> list[str]:
    if name in _WHOLE:
        return [f"{value:12d}" for value in rng.integers(1, 3, _BLOCK).tolist()]
    scale = 1e4 if "Defocus" in name else 100
    return [f"{value:12.6f}" for value in rng.normal(scale, scale / 3, _BLOCK).tolist()]


def _text(name: str, row: int) -> str:
    movie = f"FoilHole_{row // 200:07d}_Data_20260101_EER"
    return {
        "ImageName": f"{row % 200 + 1:06d}@Extract/job012/Movies/{movie}.mrcs",
        "MicrographName": f"MotionCorr/job002/Movies/{movie}.mrc",
        "GroupName": f"group_{row // 2000:04d}",
    }[name]


def ours(path: Path) -> None:
    """Read the file into a particle table."""
    from frazil.io.star import particles_from_star

    table = particles_from_star(path)
    if not (table.has_pose and table.has_ctf and table.has_shift):
        raise SystemExit("the table is not complete")


def measured(command: list[str]) -> dict[str, float]:
    """Run a command; return its CPU and wall seconds and its peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        print(json.dumps({"failed": command[:2], "status": status}), flush=True)
    found = {
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_s": round(time.perf_counter() - start, 2),
        "peak_rss_gb": round(usage.ru_maxrss / 1e6, 3),
    }
    print(json.dumps({"run": command[:2], **found}), flush=True)  # the next may take all memory
    return found


def _summed(parts: list[dict[str, float]]) -> dict[str, float]:
    total = {key: round(sum(part[key] for part in parts), 2) for key in ("cpu_s", "wall_s")}
    return {**total, "peak_rss_gb": max(part["peak_rss_gb"] for part in parts)}


def main() -> None:
    """Write the file, run the readers in turns, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_400_000)
    parser.add_argument("--starfile", help="python with starfile and pandas")
    parser.add_argument("--cryodrgn", help="the cryodrgn command")
    parser.add_argument("--folder", type=Path, help="where the file is written")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        ours(args.ours)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "particles.star"
        write_file(path, args.rows)
        us = [sys.executable, __file__, "--ours", str(path)]
        found: dict[str, list[dict[str, float]]] = {"frazil": [measured(us)]}
        if args.starfile:
            code = f"import starfile; starfile.read({str(path)!r})"
            found["starfile + pandas"] = [measured([args.starfile, "-c", code])]
        if args.cryodrgn:
            both = [
                measured([args.cryodrgn, name, str(path), "-o", f"{folder}/{name}.pkl"])
                for name in ("parse_pose_star", "parse_ctf_star")
            ]
            found["cryodrgn parse_pose_star + parse_ctf_star"] = [_summed(both)]
        found["frazil"].append(measured(us))
        size_gb = round(path.stat().st_size / 1e9, 3)
    for name, runs in found.items():
        line: dict[str, Any] = {"reader": name, "rows": args.rows, "file_gb": size_gb}
        best = min(runs, key=lambda run: run["cpu_s"])
        ratios = {
            f"{key} against {other}": round(best[key] / theirs[0][key], 3)
            for other, theirs in found.items()
            for key in ("cpu_s", "peak_rss_gb")
            if name == "frazil" and other != "frazil"
        }
        print(json.dumps({**line, "runs": runs, **ratios}), flush=True)
    own_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"benchmark itself": {"peak_rss_gb": round(own_gb, 3)}}))


if __name__ == "__main__":
    main()
