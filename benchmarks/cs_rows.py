"""Reading the particles of a large cryoSPARC .cs: seconds, CPU seconds and peak memory.

Writes a refinement's .cs of --rows particles (fields and types as cryoSPARC writes them; with
--classes also the fields of a 3D classification's parent, which make it wide), and runs, each in a
process of its own, one after the other:

* `particles_from_cs`, which `preprocess` and `import` call: poses, shifts, CTF, stacks, identities;
* the same, with images and CTF in a passthrough file of another row order (--passthrough);
* `frazil parse_pose_csparc` and `parse_ctf_csparc`;
* the yardstick, cryoDRGN's commands of the same names (--cryodrgn PROGRAM), on the same file;
* a plain sequential read of the file, which nothing can be faster than on a cold disk.

Prints one JSON line each, with ratios to cryoDRGN's two commands together; files are removed.

    python benchmarks/cs_rows.py --folder DIR --rows 10000000 --cryodrgn BIN/cryodrgn
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from frazil.io.atomic import npy_header

STACK_ROWS = 300  # images per stack
BLOCK_ROWS = 1 << 16
IMAGES = [
    ("blob/path", "S89"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
    ("ctf/type", "S9"),
    ("ctf/exp_group_id", "<u4"),
    *((f"ctf/{name}", "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A")),
    *((f"ctf/{name}", "<f4") for name in ("df_angle_rad", "phase_shift_rad", "scale")),
    *((f"ctf/{name}", "<f4", (2,)) for name in ("shift_A", "tilt_A", "trefoil_A")),
    *((f"ctf/{name}", "<f4", (4,)) for name in ("tetra_A", "anisomag")),
]
SCORES = ("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "alpha")
POSES = [
    ("alignments3D/split", "<u4"),
    ("alignments3D/shift", "<f4", (2,)),
    ("alignments3D/pose", "<f4", (3,)),
    ("alignments3D/psize_A", "<f4"),
    *((f"alignments3D/{name}", "<f4") for name in SCORES),
]
PER_CLASS = ("class_posterior", "class_ess", "pose_ess", "shift_ess")


def fill(block: np.ndarray, first: int, total: int, stride: int) -> None:
    """Fill rows of known values; row r holds particle (first + r) * stride modulo `total`."""
    particle = (first + np.arange(len(block), dtype=np.int64)) * stride % total
    block["uid"] = particle.astype(np.uint64) * np.uint64(11400714819323198485)
    names = block.dtype.names or ()
    if "blob/path" in names:
        stack, block["blob/idx"] = np.divmod(particle, STACK_ROWS)
        heads, which = np.unique(stack, return_inverse=True)
        paths = [
            f"J19/extract/{n:09d}_raw.region_000.sum-all_particles.mrc" for n in heads.tolist()
        ]
        block["blob/path"] = np.array(paths, "S89")[which]
        block["blob/shape"], block["blob/psize_A"], block["blob/sign"] = 180, 2.95, -1
        block["ctf/df1_A"], block["ctf/df2_A"] = 15000 + particle % 997, 14800 + particle % 991
        block["ctf/accel_kv"], block["ctf/cs_mm"], block["ctf/amp_contrast"] = 300, 2.7, 0.1
    if "alignments3D/pose" in names:
        for axis in range(3):
            block["alignments3D/pose"][:, axis] = (particle % (101 + axis) - 50) / 40
        block["alignments3D/shift"] = (particle % 89 - 44)[:, None] / 8
        block["alignments3D/psize_A"] = 2.95
        block["alignments3D/split"] = particle % 2


def write(path: Path, fields: list[Any], rows: int, stride: int = 1) -> None:
    """Write a .cs of `rows` particles."""
    dtype = np.dtype([("uid", "<u8"), *fields])
    block = np.zeros(min(rows, BLOCK_ROWS), dtype)
    with path.open("wb") as file:
        file.write(npy_header(dtype, rows))
        for first in range(0, rows, len(block)):
            part = block[: min(len(block), rows - first)]
            fill(part, first, rows, stride)
            file.write(part.view(np.uint8).data)


def measured(what: str, command: list[str]) -> dict[str, Any]:
    """Run a command; return what it took, of it and of nothing else."""
    load, start = os.getloadavg()[0], time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=QUIET)
    _, status, usage = os.wait4(process, 0)
    return {
        "what": what,
        "ok": status == 0,
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_mb": round(usage.ru_maxrss / 1024),
        "load_before": round(load, 1),
    }


QUIET = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0o600)]


def main() -> None:
    """Write the files, run everything, print, remove the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=0, help="classes of a wide parent file")
    parser.add_argument("--passthrough", action="store_true", help="images and CTF in another file")
    parser.add_argument("--cryodrgn", help="cryoDRGN's program; without it, no yardstick")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        wide = [
            (f"alignments_class3D_{k}/{name}", "<f4")
            for k in range(args.classes)
            for name in PER_CLASS
        ]
        main_fields = [*POSES, *wide] if args.passthrough else [*IMAGES, *POSES, *wide]
        path = folder / "J24_005_particles.cs"
        write(path, main_fields, args.rows)
        if args.passthrough:
            write(folder / "J24_passthrough_particles.cs", IMAGES, args.rows, stride=7_368_787)
        size = sum(p.stat().st_size for p in folder.iterdir())
        facts = {"rows": args.rows, "file_gb": round(size / 1e9, 2), "classes": args.classes}
        print(json.dumps(facts | {"passthrough": args.passthrough}), flush=True)
        run_all(path, folder, args.cryodrgn, passthrough=args.passthrough)
    finally:
        shutil.rmtree(folder)


def run_all(path: Path, folder: Path, cryodrgn: str | None, *, passthrough: bool) -> None:
    """Run and print every measurement."""
    code = (
        "from frazil.io.cryosparc import particles_from_cs; from pathlib import Path; "
        f"t = particles_from_cs(Path({str(path)!r})); assert t.has_pose and t.has_ctf"
    )
    lines = [measured("plain read", ["cat", str(path)])]
    lines.append(measured("particles_from_cs", [sys.executable, "-c", code]))
    program = [sys.executable, "-m", "frazil.cli.main"]
    for name in ("parse_pose_csparc", "parse_ctf_csparc"):
        out = str(folder / f"{name}.pkl")
        lines.append(measured(f"frazil {name}", [*program, name, str(path), "-o", out]))
    if cryodrgn and not passthrough:
        for name in ("parse_pose_csparc", "parse_ctf_csparc"):
            out = str(folder / f"theirs_{name}.pkl")
            box = ["-D", "180"] if name == "parse_pose_csparc" else []
            lines.append(measured(f"cryodrgn {name}", [cryodrgn, name, str(path), *box, "-o", out]))
    theirs = [line for line in lines if line["what"].startswith("cryodrgn") and line["ok"]]
    for line in lines:
        if len(theirs) == 2:
            line["cpu_ratio"] = round(sum(x["cpu_s"] for x in theirs) / max(line["cpu_s"], 0.1), 1)
            most = max(x["peak_rss_mb"] for x in theirs)
            line["rss_ratio"] = round(most / line["peak_rss_mb"], 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
