"""What frazil says of the mistakes that people make with files: one at a time, by real commands.

A small set is simulated; each row of the table puts one mistake into a copy, gives the commands
that a user would give, and shows what the last of them said: its error, or else its warnings and
the verdict of preflight. Printed is a JSON line each; exit code 1: an answer was not as expected.
--table FILE writes the rows as Markdown, too. A disk that is full is a tmpfs, for root only.

    python benchmarks/mistakes.py --out /tmp/mistakes --table table.md
"""

import argparse
import gzip
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from frazil.io.cryosparc import read_cs, write_cs
from frazil.io.pickles import read_pickle, write_pickle
from frazil.io.star import copy_rows

IMAGES, BOX_PX, SEED = 2000, 32, 0
SIMULATE = f"-n {IMAGES} -D {BOX_PX} --snr 0.3 --stacks 2 --motion none --shift-px 2"
NETWORK = "--zdim 2 -n 1 --no-analysis --enc-dim 16 --dec-dim 16 --enc-layers 1 --dec-layers 1"
SETS = ("set", "other")
SET = "../set"
STAR, CS = f"{SET}/particles.star", f"{SET}/particles.cs"
POSES, CTF = f"{SET}/poses.pkl", f"{SET}/ctf.pkl"
LIST = "stacks.txt"


@dataclass(frozen=True)
class Mistake:
    """A mistake: what puts it into an empty folder, the commands, and what is expected.

    `made` works in the folder (the set is in ../set). `words` must be in the answer of the last
    command, whose exit code must be `code`.
    """

    name: str
    commands: tuple[str, ...]
    words: tuple[str, ...]
    code: int = 2
    made: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Row:
    """One line of the table; `problems` are the expectations that were not met."""

    mistake: str
    command: str
    exit_code: int
    said: str
    problems: tuple[str, ...]


class Bomb:
    """Makes a file when what its pickle asks for is run."""

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (Path("exploded"),))


def frazil(line: str) -> tuple[int, list[str], list[str]]:
    """Run a command; return its exit code and the lines of stdout and stderr."""
    words = [sys.executable, "-m", "frazil.cli.main", *line.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.replace("\r", "\n").splitlines()


def answer(out: list[str], errors: list[str]) -> str:
    """Return the error of a command; without one its warnings, notes and what preflight found."""
    failed = [line for line in errors if ": error: " in line or "Traceback" in line]
    if failed:
        return " / ".join(failed)
    wanted = r"^(warning|note)|preflight: (mistake|warning|looks|likely|cannot)|incomplete"
    return " / ".join(line for line in out if re.search(wanted, line)) or out[-1]


def rows_of(mistake: Mistake, folder: Path) -> list[Row]:
    """Make a mistake in an empty folder, and give its commands."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    mistake.made()
    problems, code, said = [], 0, ""
    for number, line in enumerate(mistake.commands):
        code, out, errors = frazil(line)
        said = answer(out, errors)
        if code and number < len(mistake.commands) - 1:
            problems.append(f"{line}: exit code {code}: {said}")
    if code != mistake.code:
        problems.append(f"exit code {code}, {mistake.code} wanted")
    if "Traceback" in said:
        problems.append("a traceback")
    problems += [f"does not say {word!r}" for word in mistake.words if word not in said]
    if Path("exploded").exists():
        problems.append("the code of a pickle was run")
    said = said.replace(str(folder.parent) + "/", "")
    return [Row(mistake.name, mistake.commands[-1], code, said, tuple(problems))]


def order() -> Any:
    """Return the order of the reordered files."""
    return np.random.default_rng(SEED).permutation(IMAGES)


def reordered() -> None:
    copy_rows(Path(STAR), Path("reordered.star"), order())


def reordered_with_rows() -> None:
    reordered()
    write_pickle(Path("ind.pkl"), np.arange(100))


def subset() -> None:
    copy_rows(Path(STAR), Path("subset.star"), np.arange(0, IMAGES, 2))


def poses(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[], None]:
    """Return what writes wrong.pkl, changed from the right poses, and a bare list of the stacks."""

    def write() -> None:
        rotation, shift = change(*read_pickle(Path(POSES)))
        write_pickle(Path("wrong.pkl"), (np.ascontiguousarray(rotation), shift))
        stacks()

    return write


def stacks() -> None:
    names = [f"{SET}/{path.name}\n" for path in sorted(Path(SET).glob("*.mrcs"))]
    Path(LIST).write_text("".join(names))


def ctf(column: int, factor: float) -> Callable[[], None]:
    """Return what writes ctf.pkl with a column multiplied, and a bare list of the stacks."""

    def write() -> None:
        parameters = read_pickle(Path(CTF)).copy()
        parameters[:, column] *= factor
        write_pickle(Path("ctf.pkl"), parameters)
        stacks()

    return write


def star_text(old: str, new: str) -> Callable[[], None]:
    """Return what writes changed.star, in which a text is another."""

    def write() -> None:
        text = Path(STAR).read_text()
        if old not in text:
            raise ValueError(f"{old} is not in {STAR}")
        Path("changed.star").write_text(text.replace(old, new))

    return write


def pixel_size() -> None:
    """Write changed.star, in which the pixel size is 0.8 times as large."""
    size = float(read_cs(Path(CS))["blob/psize_A"][0])
    star_text(f" {size:g} ", f" {0.8 * size:g} ")()


def cs(change: Callable[[Any], Any]) -> Callable[[], None]:
    """Return what writes changed.cs out of the rows of the right one."""

    def write() -> None:
        write_cs(Path("changed.cs"), change(read_cs(Path(CS)).copy()))

    return write


def with_value(name: str, row: int, value: float) -> Callable[[Any], Any]:
    """Return what sets a field of one row."""

    def change(array: Any) -> Any:
        array[name][row] = value
        return array

    return change


def half_sampling(array: Any) -> Any:
    array["alignments3D/psize_A"] *= 2
    return array


def only(array: Any, *prefixes: str) -> Any:
    """Return the columns of a structured array that begin with one of some texts."""
    names = [name for name in array.dtype.names if name.startswith(prefixes)]
    kept = np.zeros(len(array), [(name, array.dtype[name]) for name in names])
    for name in names:
        kept[name] = array[name]
    return kept


def two_dimensional(array: Any) -> Any:
    """Return particles of a 2D classification."""
    fields = [("alignments2D/pose", "<f4"), ("alignments2D/shift", "<f4", (2,))]
    kept = only(array, "uid", "blob", "ctf")
    flat = np.zeros(len(kept), kept.dtype.descr + fields)
    for name in kept.dtype.names:
        flat[name] = kept[name]
    return flat


def two_jobs() -> None:
    """Write a job's particles, and the passthrough of another job beside them."""
    array = read_cs(Path(CS))
    Path("J7").mkdir()
    write_cs(Path("J7/J7_particles.cs"), only(array, "uid", "alignments3D"))
    array = array.copy()
    array["uid"] = np.random.default_rng(1).permutation(array["uid"]) + 1
    write_cs(Path("J7/J7_passthrough_particles.cs"), only(array, "uid", "blob", "ctf"))


def same_names() -> None:
    """Write two folders with a stack of one name, and a .star that names both without a folder."""
    text = Path(STAR).read_text()
    for folder, name in (("a", "particles_000.mrcs"), ("b", "particles_001.mrcs")):
        Path(folder).mkdir()
        shutil.copy(Path(SET) / name, Path(folder) / "p.mrcs")
        text = text.replace(f"@{name}", f"@lost/{folder}/p.mrcs")
    Path("changed.star").write_text(text)
    Path("bare.star").write_text(re.sub(r"@lost/\w/p", "@p", text))


def broken_links() -> None:
    """Write a project whose stacks are links to a disk that is not there."""
    Path("Extract").mkdir()
    for path in sorted(Path(SET).glob("*.mrcs")):
        (Path("Extract") / path.name).symlink_to(f"/lost/disk/{path.name}")
    star_text("@", "@Extract/")()


def own_stack(change: Callable[[Path], None]) -> Callable[[], None]:
    """Return what copies the set here, and then changes its second stack."""

    def write() -> None:
        shutil.copytree(SET, "mine")
        change(Path("mine/particles_001.mrcs"))

    return write


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def compressed(path: Path) -> None:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()
    star = path.parent / "particles.star"
    star.write_text(star.read_text().replace(path.name, path.name + ".gz"))


def negative(path: Path) -> None:
    for stack in path.parent.glob("*.mrcs"):
        raw = stack.read_bytes()
        stack.write_bytes(raw[:1024] + (-np.frombuffer(raw[1024:], "<f4")).tobytes())


def bomb() -> None:
    Path("poses.pkl").write_bytes(pickle.dumps(Bomb()))


def nan_pose(rotation: Any, shift: Any) -> tuple[Any, Any]:
    rotation = rotation.copy()
    rotation[17] = np.nan
    return rotation, shift


def mistakes() -> list[Mistake]:
    """Return all rows but those of a full disk and of a kill."""
    pack, bare = "preprocess", f"preprocess {LIST} --ctf {CTF}"
    train = f"--no-preflight {NETWORK}"
    other = "preprocess {} --poses ../other/poses.pkl -o p.frz"
    return [
        Mistake("none", (f"{pack} {STAR} -o p.frz",), ("looks right",), 0),
        Mistake(
            "reordered .star, by itself",
            (f"{pack} reordered.star --datadir {SET} -o p.frz",),
            ("looks right",),
            0,
            reordered,
        ),
        Mistake(
            "reordered .star, poses of the old order",
            (f"{pack} reordered.star --datadir {SET} --poses {POSES} -o p.frz",),
            ("poses.pkl: row 0", "in another order"),
            made=reordered,
        ),
        Mistake(
            "reordered .star, CTF of the old order",
            (f"{pack} reordered.star --datadir {SET} --ctf {CTF} -o p.frz",),
            ("ctf.pkl: row 0", "in another order"),
            made=reordered,
        ),
        Mistake(
            "preprocessed from a reordered .star, poses and CTF of the old order",
            (
                f"{pack} reordered.star --datadir {SET} -o p.mrcs",
                f"{pack} p.ft.txt --poses {POSES} --ctf {CTF} -o p.frz",
            ),
            ("mistake: ", "poses"),
            0,
            reordered,
        ),
        Mistake(
            "selection made for the old order, by identity",
            (
                f"select {STAR} -n 1500 -o some.sel",
                f"{pack} reordered.star --datadir {SET} --ind some.sel -o p.frz",
            ),
            ("looks right (1500 particles",),
            0,
            reordered_with_rows,
        ),
        Mistake(
            "row numbers made for the old order",
            (f"{pack} reordered.star --datadir {SET} --ind ind.pkl --no-preflight -o p.frz",),
            (),
            0,
            reordered_with_rows,
        ),
        Mistake(
            "subset of a .star, poses of the whole",
            (f"{pack} subset.star --datadir {SET} --poses {POSES} -o p.frz",),
            (f"poses.pkl: {IMAGES} rows, but there are {IMAGES // 2} particles",),
            made=subset,
        ),
        Mistake(
            "one name in two folders, found by the end of their paths",
            (f"{pack} changed.star --datadir . -o p.frz",),
            ("looks right",),
            0,
            same_names,
        ),
        Mistake(
            "one name in two folders, the .star names no folder",
            (f"{pack} bare.star --datadir . -o p.frz",),
            ("p.mrcs", "--datadir"),
            made=same_names,
        ),
        Mistake(
            "broken links",
            (f"{pack} changed.star -o p.frz",),
            ("0 of 2 stacks found", "a link to /lost/disk/particles_000.mrcs", "--map"),
            made=broken_links,
        ),
        Mistake(
            "wrong -D",
            (f"parse_pose_csparc changed.cs -D {BOX_PX} -o pose.pkl",),
            (f"warning: -D {BOX_PX} is used", "gets (", "own figures give ("),
            0,
            cs(half_sampling),
        ),
        Mistake(
            "poses made with the -D of another box",
            (f"{pack} {STAR} --poses wrong.pkl -o p.frz",),
            ("shifts are 2 times those of", "mistake: "),
            0,
            poses(lambda r, t: (r, 2 * t)),
        ),
        Mistake(
            "the same, images without metadata",
            (f"{bare} --poses wrong.pkl -o p.frz",),
            ("mistake: ", "shifts"),
            0,
            poses(lambda r, t: (r, 2 * t)),
        ),
        Mistake(
            "wrong pixel size in the .star",
            (f"{pack} changed.star --datadir {SET} -o p.frz",),
            (),
            0,
            pixel_size,
        ),
        Mistake(
            "ctf.pkl of another box",
            (f"{pack} {STAR} --ctf ctf.pkl -o p.frz",),
            ("ctf.pkl: row 0", f"{2 * BOX_PX} px x", "leave --ctf out"),
            made=ctf(0, 2),
        ),
        Mistake(
            "transposed rotations",
            (f"{pack} {STAR} --poses wrong.pkl -o p.frz",),
            ("transposed rotations of",),
            made=poses(lambda r, t: (r.transpose(0, 2, 1), t)),
        ),
        Mistake(
            "the same, images without metadata",
            (f"{bare} --poses wrong.pkl -o p.frz",),
            ("mistake: ", "transposed"),
            0,
            poses(lambda r, t: (r.transpose(0, 2, 1), t)),
        ),
        Mistake(
            "negated shifts",
            (f"{pack} {CS} --poses wrong.pkl -o p.frz",),
            ("with the other sign",),
            made=poses(lambda r, t: (r, -t)),
        ),
        Mistake(
            "the same, images without metadata",
            (f"{bare} --poses wrong.pkl -o p.frz",),
            ("mistake: ", "shifts"),
            0,
            poses(lambda r, t: (r, -t)),
        ),
        Mistake(
            "inverted contrast",
            (f"{pack} mine/particles.star -o p.frz",),
            ("mistake: ", "contrast", "--uninvert-data"),
            0,
            own_stack(negative),
        ),
        Mistake(
            "poses of another set of as many particles",
            (other.format(STAR),),
            ("warning: ../other/poses.pkl", "check that it belongs", "mistake: "),
            0,
        ),
        Mistake(
            "the same, images without metadata",
            (other.format(f"{LIST} --ctf {CTF}"),),
            ("mistake: ", "poses"),
            0,
            stacks,
        ),
        Mistake(
            "no column of defocus",
            (f"{pack} changed.star --datadir {SET} -o p.frz", f"train_vae p.frz -o run {train}"),
            ("no defocus_u_ang", "--ctf"),
            made=star_text("_rlnDefocusU", "_rlnElse"),
        ),
        Mistake(
            "the same, parsed",
            ("parse_ctf_star changed.star -o ctf.pkl",),
            ("_rlnDefocusU", "give the .star"),
            made=star_text("_rlnDefocusU", "_rlnElse"),
        ),
        Mistake(
            "no column of an angle",
            (f"{pack} changed.star --datadir {SET} -o p.frz", f"train_vae p.frz -o run {train}"),
            ("--poses",),
            made=star_text("_rlnAnglePsi", "_rlnElse"),
        ),
        Mistake(
            "32-bit index beyond the stack",
            (f"{pack} changed.cs --datadir {SET} -o p.frz",),
            ("row 5 (0-based) wants image 4294967295", "particles_000.mrcs, which has 1000"),
            made=cs(with_value("blob/idx", 5, 2**32 - 1)),
        ),
        Mistake(
            "truncated stack",
            (f"{pack} mine/particles.star -o p.frz",),
            ("particles_001.mrcs, which is cut short: 999 of 1000",),
            made=own_stack(cut),
        ),
        Mistake(
            "compressed stack",
            (f"{pack} mine/particles.star -o p.frz",),
            ("particles_001.mrcs.gz", "gunzip"),
            made=own_stack(compressed),
        ),
        Mistake(
            "a pickle that would run code",
            (f"{pack} {STAR} --poses poses.pkl -o p.frz",),
            ("poses.pkl: refused, because unpickling it would run",),
            made=bomb,
        ),
        Mistake(
            "a pose that is no number, in a pickle",
            (f"{pack} {STAR} --poses wrong.pkl -o p.frz",),
            ("wrong.pkl: row 17 (0-based) has a rotation that is not a number",),
            made=poses(nan_pose),
        ),
        Mistake(
            "a pose that is no number, in a .cs",
            (f"{pack} changed.cs --datadir {SET} -o p.frz",),
            ("changed.cs: row 17 (0-based) has a pose that is not a number",),
            made=cs(with_value("alignments3D/pose", 17, np.nan)),
        ),
        Mistake(
            "particles of a 2D classification",
            (f"train_vae changed.cs --datadir {SET} -o run {train}",),
            ("alignments2D", "ab-initio job or a refinement"),
            made=cs(two_dimensional),
        ),
        Mistake(
            "the passthrough of another job",
            (f"{pack} J7 --datadir {SET} -o p.frz",),
            ("J7_passthrough_particles.cs",),
            made=two_jobs,
        ),
    ]


def killed(folder: Path) -> list[Row]:
    """Kill packing in its middle, and give the command again."""
    line = f"preprocess {STAR} --no-preflight -o p.frz"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    frazil(line.replace("p.frz", "whole.frz"))
    process = subprocess.Popen(
        [sys.executable, "-m", "frazil.cli.main", *line.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not Path("p.frz.partial").exists():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = sorted(path.name for path in Path().iterdir() if path.name != "whole.frz")
    code, out, errors = frazil(line)
    problems = [] if left == ["p.frz.partial"] else [f"left: {left}"]
    pairs = [(path, Path("p.frz") / path.name) for path in Path("whole.frz").glob("*.npy")]
    pairs += [(p, Path("p.frz/shards") / p.name) for p in Path("whole.frz/shards").iterdir()]
    differ = [one.name for one, two in pairs if one.read_bytes() != two.read_bytes()]
    problems += [f"differs: {differ}"] if differ or len(pairs) < 2 else []
    said = f"{answer(out, errors)} ({len(pairs)} files equal, bitwise, to those of a run in one go)"
    problems += [f"exit code {code}"] if code else []
    return [Row("killed in the middle, then the same command", line, code, said, tuple(problems))]


def full_disk(folder: Path) -> list[Row]:
    """Pack onto a disk that is too small; none where a tmpfs cannot be mounted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        print("full disk: left out, as only root may mount a tmpfs", file=sys.stderr)
        return []
    try:
        os.chdir(folder.parent / "set")
        line = "preprocess particles.star -o ../disk/p.frz"
        code, out, errors = frazil(line)
        said, left = answer(out, errors), [path.name for path in folder.iterdir()]
        problems = [] if code == 2 and "of disk" in said else ["not refused"]
        problems += [f"left: {left}"] if left else []
        return [Row("a disk that is too small", line, code, said, tuple(problems))]
    finally:
        os.chdir(folder.parent)
        subprocess.run(["umount", str(folder)], check=True)


def markdown(rows: list[Row]) -> str:
    """Return the table."""
    lines = [
        "| mistake | command | exit | what frazil said | as expected |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        said = row.said.replace("|", "\\|").replace(SET + "/", "set/").replace("../", "")
        command = row.command.replace(SET + "/", "set/").replace("../", "").replace(SET, "set")
        command = command.replace(f" {NETWORK}", "")
        met = "; ".join(row.problems) or "yes"
        lines.append(f"| {row.mistake} | `{command}` | {row.exit_code} | {said} | {met} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Make the sets, run all rows, print them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--table", type=Path, help="write the rows as Markdown here")
    parser.add_argument("--only", default="", help="only the rows whose name holds this text")
    args = parser.parse_args()
    out: Path = args.out.resolve()
    table = args.table.resolve() if args.table else None
    out.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(SETS):
        if not (out / name / "simulation.json").exists():
            os.chdir(out)
            frazil(f"simulate {SIMULATE} --seed {seed} -o {name}")
    rows = []
    makers: list[tuple[str, Callable[[], list[Row]]]] = [
        (mistake.name, partial(rows_of, mistake, out / "row")) for mistake in mistakes()
    ]
    makers += [("disk", partial(full_disk, out / "disk")), ("kill", partial(killed, out / "row"))]
    for name, make in makers:
        if args.only in name:
            for row in make():
                print(json.dumps(asdict(row)), flush=True)
                rows.append(row)
    if table:
        table.write_text(markdown(rows))
    return int(any(row.problems for row in rows))


if __name__ == "__main__":
    sys.exit(main())
