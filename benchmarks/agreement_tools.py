"""The small commands beside cryoDRGN's, on the same files.

Makes a small set, runs each command of `cryodrgn_utils` and of frazil on it, and prints one JSON
line per comparison: what is equal, or the largest difference over the largest value. Where the
programs are meant to differ, a twin in numpy says which of them is right.

    python benchmarks/agreement_tools.py --cryodrgn VENV/bin/python

cryoDRGN runs its commands in its own interpreter, in one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from frazil.cli.main import main as frazil
from frazil.geometry.masks import default_threshold
from frazil.io.cryosparc_files import read_cs, write_cs
from frazil.io.mrc import StackWriter, read_header, read_images, read_volume, write_volume
from frazil.io.pickles import read_pickle, write_pickle
from frazil.io.star import particles_from_star, read_star, write_star

COUNT, BOX_PX, APIX = 50, 32, 1.5
COMMANDS = (
    "write_star p.mrcs -o OUT/w31.star --ctf ctf.pkl --poses pose.pkl --ind ind.pkl",
    "write_star p.mrcs -o OUT/w30.star --ctf ctf.pkl --poses pose.pkl --relion30",
    "write_star p.star -o OUT/ws.star --ind ind.pkl",
    "filter_star p.star --ind ind.pkl -o OUT/f.star",
    "filter_cs p.cs --ind ind.pkl -o OUT/f.cs",
    "filter_pkl pose.pkl --ind ind.pkl -o OUT/pose.pkl",
    "filter_pkl ctf.pkl --first 7 -o OUT/ctf.pkl",
    "concat_pkls pose.pkl pose.pkl -o OUT/two.pkl",
    "add_psize v.mrc --Apix 2.5 -o OUT/a.mrc",
    "flip_hand v.mrc -o OUT/h.mrc",
    "invert_contrast v.mrc -o OUT/i.mrc",
    "phase_flip p.mrcs ctf.pkl -o OUT/flip.mrcs",
    "translate_mrcs p.mrcs pose.pkl -o OUT/t.mrcs",
    "gen_mask v.mrc OUT/m.mrc --dilate 9 --dist 12",
)
THEIRS = """
import sys
from cryodrgn.command_line import util_commands
for line in sys.stdin:
    sys.argv = ["cryodrgn_utils", *line.split()]
    util_commands()
"""

# From a small process: a child's peak counts that of the process it was forked from.
MEASURE = """
import os, subprocess, sys
nowhere = subprocess.DEVNULL
process = subprocess.Popen(sys.argv[1:], stdout=nowhere, stderr=nowhere)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def make_inputs() -> None:
    """Write images, volume, pickles, .star and .cs into the working folder."""
    generator = np.random.Generator(np.random.PCG64(0))
    with StackWriter(Path("p.mrcs"), (BOX_PX, BOX_PX), COUNT, APIX) as writer:
        writer.write(generator.standard_normal((COUNT, BOX_PX, BOX_PX)).astype(np.float32))
    z, y, x = np.mgrid[-16:16, -16:16, -16:16]
    blob = np.exp(-((z - 2) ** 2 + y**2 + (x + 1) ** 2) / 20).astype(np.float32)
    write_volume(Path("v.mrc"), blob, 3.0)
    rotation = np.linalg.qr(generator.standard_normal((COUNT, 3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))[:, None, None]
    shift = generator.uniform(-0.1, 0.1, (COUNT, 2))
    write_pickle(Path("pose.pkl"), (rotation.astype(np.float32), shift.astype(np.float32)))
    ctf = np.tile(np.array([BOX_PX, APIX, 9000, 8700, 30, 300, 2.7, 0.1, 0]), (COUNT, 1))
    ctf[:, 2] += 150 * np.arange(COUNT)
    write_pickle(Path("ctf.pkl"), ctf.astype(np.float32))
    write_pickle(Path("ind.pkl"), np.sort(generator.permutation(COUNT)[:20]))
    cs = np.zeros(COUNT, [("uid", "<u8"), ("blob/path", "S6"), ("blob/shape", "<u4", (2,))])
    cs["uid"], cs["blob/path"] = np.arange(COUNT) + 1000, b"p.mrcs"
    write_cs(Path("p.cs"), cs)
    optics = {"_rlnOpticsGroup": [1], "_rlnVoltage": [300.0], "_rlnImagePixelSize": [APIX]}
    optics |= {"_rlnSphericalAberration": [2.7], "_rlnAmplitudeContrast": [0.1]}
    particles = {
        "_rlnImageName": [f"{row + 1:06d}@p.mrcs" for row in range(COUNT)],
        "_rlnOpticsGroup": [1] * COUNT,
        "_rlnDefocusU": ctf[:, 2],
    }
    write_star(Path("p.star"), {"optics": optics, "particles": particles})


def run_both(interpreter: str) -> None:
    """Run every command with both programs; outputs in theirs/ and ours/."""
    for folder in ("theirs", "ours"):
        Path(folder).mkdir()
    lines = "\n".join(COMMANDS).replace("OUT", "theirs")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [interpreter, "-W", "ignore", "-c", THEIRS],
        input=lines,
        text=True,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        for line in COMMANDS:
            if frazil(line.replace("OUT", "ours").split()):
                raise SystemExit(f"failed: {line}")


def stacks(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a stack or map of both programs, theirs first."""
    found = []
    for folder in ("theirs", "ours"):
        path = Path(folder) / name
        found.append(read_images(path, np.arange(read_header(path).nz)).astype(np.float64))
    return found[0], found[1]


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))


def inside_nyquist(images: np.ndarray) -> np.ndarray:
    """Return images without the Nyquist lines, on which the two programs differ."""
    transform = np.fft.fft2(images)
    transform[:, BOX_PX // 2] = transform[:, :, BOX_PX // 2] = 0
    return np.fft.ifft2(transform).real


def say(command: str, what: str, **values: Any) -> None:
    """Print one line."""
    rounded = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"command": command, "what": what, **rounded}), flush=True)


def compare_rows() -> None:
    """Compare pickles and .cs."""
    for name in ("pose.pkl", "ctf.pkl", "two.pkl"):
        both = [read_pickle(Path(folder) / name) for folder in ("theirs", "ours")]
        pairs = zip(*(v if isinstance(v, tuple) else (v,) for v in both), strict=True)
        command = "concat_pkls" if name == "two.pkl" else "filter_pkl"
        say(command, name, equal=all(np.array_equal(a, b) for a, b in pairs))
    a, b = (read_cs(Path(folder) / "f.cs") for folder in ("theirs", "ours"))
    say("filter_cs", "bytes of all rows", equal=a.tobytes() == b.tobytes())


def compare_stars() -> None:
    """Compare .star files as particles, and the text of kept rows."""
    for name in ("w31.star", "w30.star"):
        a, b = (read_star(Path(folder) / name).particles for folder in ("theirs", "ours"))
        labels = [label for label in a.names if label in b and label != "_rlnImageName"]
        far = max(largest(a.column(label), b.column(label)) for label in labels)
        missing = [label for label in b.names if label not in a]
        extra = [label for label in a.names if label not in b]
        say(
            "write_star",
            name,
            columns=len(labels),
            largest=far,
            only_ours=missing,
            only_theirs=extra,
        )
    rotation, shift = read_pickle(Path("pose.pkl"))
    table = particles_from_star(Path("ours/w30.star"))
    ang = BOX_PX * APIX
    say(
        "write_star",
        "ours, read back, and the pickles",
        rotations=largest(table.rows["rotation"], rotation),
        shifts=largest(table.rows["shift_ang"] / ang, shift),
    )
    wanted = Path("p.star").read_bytes().splitlines()
    for command, name in (("filter_star", "f.star"), ("write_star", "ws.star")):
        for folder in ("theirs", "ours"):
            lines = (Path(folder) / name).read_bytes().splitlines()
            rows = [line for line in lines if b"@" in line]
            kept = sum(row in wanted for row in rows) / len(rows)
            optics = any(line in wanted for line in lines if b"300.0" in line)
            say(command, f"{folder}: text as it was", rows=kept, optics_table=optics)


def compare_maps() -> None:
    """Compare maps and masks."""
    a, b = stacks("i.mrc")
    say("invert_contrast", "voxels", largest=largest(a, b))
    a, b = stacks("h.mrc")
    say("flip_hand", "voxels, as given", largest=largest(a, b))
    say("flip_hand", "voxels, theirs moved by one", largest=largest(np.roll(a, 1, 0), b))
    a, b = (read_header(Path(folder) / "a.mrc").pixel_size_ang for folder in ("theirs", "ours"))
    say("add_psize", "A/px", theirs=a, ours=b)
    volume = read_volume(Path("v.mrc"))[0]
    inside = volume >= default_threshold(volume)
    a, b = stacks("m.mrc")
    points = np.argwhere(inside)
    reach = {}
    for name, mask in (("theirs", a), ("ours", b)):
        full = np.argwhere((mask == 1) & ~inside)
        nearest = np.sqrt(((full[:, None] - points) ** 2).sum(-1)).min(1)
        ball = _within(inside, 3.0)
        reach[name] = float((mask[ball] == 1).mean())
        reach[f"{name}_furthest_px"] = float(nearest.max())
    say("gen_mask", "share of the voxels within --dilate (3 px) that are 1", **reach)
    say("gen_mask", "voxels", largest=largest(a, b))


def _within(inside: np.ndarray, radius: float) -> np.ndarray:
    points = np.argwhere(inside)
    every = np.argwhere(np.ones_like(inside))
    near = np.array([((points - p) ** 2).sum(1).min() <= radius**2 for p in every])
    return near.reshape(inside.shape)


def compare_images() -> None:
    """Compare stacks, and phase flips with a twin that takes one image at a time."""
    a, b = stacks("t.mrcs")
    say("translate_mrcs", "images", largest=largest(a, b))
    say(
        "translate_mrcs",
        "images without the Nyquist lines",
        largest=largest(inside_nyquist(a), inside_nyquist(b)),
    )
    a, b = stacks("flip.mrcs")
    twin = np.stack(list(map(_flipped_twin, *_images_and_ctf())))
    twin, a, b = map(inside_nyquist, (twin, a, b))
    say("phase_flip", "theirs and one image at a time", largest=largest(a, twin))
    say("phase_flip", "ours and one image at a time", largest=largest(b, twin))
    for folder in ("theirs", "ours"):
        found = [read_header(Path(folder) / n).pixel_size_ang for n in ("t.mrcs", "flip.mrcs")]
        say("translate_mrcs, phase_flip", f"{folder}: A/px (1.5 in the input)", found=found)


def _images_and_ctf() -> tuple[np.ndarray, np.ndarray]:
    images = read_images(Path("p.mrcs"), np.arange(COUNT)).astype(np.float64)
    return images, read_pickle(Path("ctf.pkl")).astype(np.float64)


def _flipped_twin(image: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return one image with flipped phases, from the definition of the CTF."""
    _, apix, u, v, angle, kv, cs_mm, w, phase = row
    k = np.fft.fftfreq(BOX_PX, apix)
    ky, kx = np.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    wave = 12.2639 / np.sqrt(kv * 1e3 + 0.97845e-6 * (kv * 1e3) ** 2)
    azimuth = np.arctan2(ky, kx) - np.radians(angle)
    defocus = (u + v + (u - v) * np.cos(2 * azimuth)) / 2
    gamma = 2 * np.pi * (cs_mm * 1e7 * wave**3 * square**2 / 4 - wave * square * defocus / 2)
    gamma -= np.radians(phase)
    ctf = np.sqrt(1 - w**2) * np.sin(gamma) - w * np.cos(gamma)
    return np.fft.ifft2(np.fft.fft2(image) * np.sign(ctf)).real


def compare_cost(interpreter: str, count: int) -> None:
    """Print peak memory and CPU time of both programs on `count` images and 50 rows for each."""
    side = 256
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal((100, side, side))
    with StackWriter(Path("big.mrcs"), (side, side), 100 * (count // 100), APIX) as writer:
        for _ in range(count // 100):
            writer.write(noise.astype(np.float32))
    write_pickle(Path("big.pkl"), np.full((writer.count, 2), 0.01, np.float32))
    size = 4 * side**2 * writer.count / 1e6
    _cost(interpreter, "translate_mrcs big.mrcs big.pkl -o OUT.mrcs", f"{size:.0f} MB of images")
    rows = 50 * count
    columns = {
        "_rlnImageName": [f"{row % 1000 + 1:06d}@s{row // 1000}.mrcs" for row in range(rows)]
    }
    columns["_rlnMicrographName"] = [f"m{row // 250}.mrc" for row in range(rows)]
    columns |= {f"_rlnColumn{n}": [f"{row * 0.37:.6f}" for row in range(rows)] for n in range(18)}
    optics = {"_rlnOpticsGroup": [1], "_rlnVoltage": [300.0], "_rlnImagePixelSize": [APIX]}
    write_star(Path("big.star"), {"optics": optics, "particles": columns})
    write_pickle(Path("half.pkl"), np.arange(0, rows, 2))
    what = f"{rows} rows, 20 columns"
    _cost(interpreter, "filter_star big.star --ind half.pkl -o OUT.star", what)
    _cost(interpreter, "filter_star big.star -m --ind half.pkl -o OUT", what)


def _cost(interpreter: str, line: str, what: str) -> None:
    """Run one command line with both programs in processes of their own."""
    run_theirs = "from cryodrgn.command_line import util_commands; util_commands()"
    theirs = [interpreter, "-W", "ignore", "-c", run_theirs]
    found = {}
    for name, program in (("theirs", theirs), ("ours", [sys.executable, "-m", "frazil.cli.main"])):
        words = line.replace("OUT", f"{name}.big").split()
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, *program, *words], capture_output=True, text=True
        )
        if run.returncode:
            raise SystemExit(f"failed: {name} {line}")
        kilobytes, seconds = map(float, run.stdout.split())
        found[f"{name}_mb"] = kilobytes / 1000
        found[f"{name}_cpu_s"] = seconds
    say(line, what, **found, cpu_ratio=found["theirs_cpu_s"] / found["ours_cpu_s"])


def main() -> None:
    """Run all comparisons in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cryodrgn", required=True, help="Python that has cryoDRGN 4.3.1")
    parser.add_argument("--cost", type=int, metavar="N", help="memory and time of N images, too")
    args = parser.parse_args()
    interpreter = str(Path(args.cryodrgn).absolute())
    parts: tuple[Callable[[], None], ...] = (
        compare_rows,
        compare_stars,
        compare_maps,
        compare_images,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_inputs()
        run_both(interpreter)
        for part in parts:
            part()
        if args.cost:
            compare_cost(interpreter, args.cost)
        os.chdir("/")


if __name__ == "__main__":
    main()
