"""What frazil does when things go wrong, with real processes on real files.

Each fault is done for real: kill -9, a file that is cut or vanishes under a process (which is
stopped meanwhile, so that the moment is the same every time), a disk that fills up (a tmpfs, for
root only). Printed is a JSON line each: what was done, what frazil said, its exit code, what was
left on disk, and whether the same command, given again, came to the bytes of an undisturbed run.
Exit code 1: a fault was not survived as expected. --table FILE writes the rows as Markdown, too.

So that a small set has many shards and commits, packing uses shards of 4 MB, appends of 1 MB and
commits of 4 MB; nothing else differs from the program.

    python benchmarks/faults.py --out /tmp/faults
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROGRAM = """
import sys
import frazil.preprocess.pipeline as pipeline, frazil.store.writer as writer
pipeline.APPEND_BYTES, pipeline.COMMIT_BYTES, writer.SHARD_BYTES = 1 << 20, 4 << 20, 4 << 20
from frazil.cli.main import main
sys.argv = ["frazil", *sys.argv[1:]]
sys.exit(main())
"""
# The workers of a cluster are processes of their own, which the constants would not reach.
PLAIN_PROGRAM = """
import sys
from frazil.cli.main import main
sys.argv = ["frazil", *sys.argv[1:]]
if __name__ == "__main__":
    sys.exit(main())
"""
NETWORK = "--zdim 2 --enc-dim 16 --dec-dim 16 --enc-layers 1 --dec-layers 1 --device cpu"
# Windows of one chunk, and too little memory to keep all: the shards are read in every epoch.
STREAMED = "-D 32 --shuffler-size 100 --memory 2000000 --log-interval 500 -n 3 --no-analysis"
STORE = "x.frz"
WAIT_S = 120.0


@dataclass(frozen=True)
class Row:
    """One fault and what came of it; `problems` are the expectations that were not met."""

    fault: str
    said: str
    exit_code: int | None
    left: str
    again: str
    seconds: float
    problems: tuple[str, ...]


class Process:
    """A frazil command in a folder, its output in files."""

    def __init__(self, folder: Path, line: str, program: str = PROGRAM) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.line = folder, line
        number = len(list(folder.glob("*.out")))
        self._out = folder / f"{number}.out"
        self._err = folder / f"{number}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            words = [sys.executable, "-c", program, *line.split()]
            self._process = subprocess.Popen(words, cwd=folder, stdout=out, stderr=err)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def out(self) -> str:
        """What it printed so far."""
        return self._out.read_text()

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that are not of a progress bar."""
        text = self._err.read_text().replace("\r", "\n")
        return [line for line in text.splitlines() if "error" in line.lower() or "Trace" in line]

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait; return whether the condition came before the end of the process."""
        start = time.monotonic()
        while self._process.poll() is None and time.monotonic() - start < WAIT_S:
            if condition():
                return True
            time.sleep(0.001)
        return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that is over takes none."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code; negative is a signal."""
        return self._process.wait(WAIT_S)

    def stopped_when(self, condition: Callable[[], bool]) -> bool:
        """Stop it when the condition holds; return whether that was before its end."""
        came = self.until(condition)
        self.send(signal.SIGSTOP)
        return came and self._process.poll() is None


@dataclass(frozen=True)
class Case:
    """The set, an undisturbed store and run of it, and where rows are made."""

    out: Path
    images: int
    seed: int

    @property
    def set(self) -> Path:
        """The folder of the simulated set."""
        return self.out / "set"

    @property
    def packing(self) -> str:
        """The command that packs."""
        return f"preprocess {self.set}/particles.star -o {STORE} --max-threads 2"

    @property
    def training(self) -> str:
        """The command that trains on the undisturbed store."""
        return f"train_vae {self.out}/whole/{STORE} -o run {NETWORK} {STREAMED}"

    def folder(self, name: str) -> Path:
        """Return an empty folder."""
        folder = self.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def last_stack(self) -> Path:
        """The stack that is read last."""
        return sorted(self.set.glob("*.mrcs"))[-1]


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def difference(found: Path, wanted: Path) -> str:
    """Return "equal, bitwise", or the first file that differs."""
    here, there = digests(found), digests(wanted)
    names = sorted(here.keys() ^ there.keys()) + [
        name for name in here if name in there and here[name] != there[name]
    ]
    return f"differs: {', '.join(names[:3])}" if names else "equal, bitwise"


def run_difference(found: Path, wanted: Path) -> str:
    """As `difference`, for the weights and latents of a run."""
    names = sorted(path.name for path in wanted.glob("*.*") if path.name[0] in "wz")
    bad = [
        name
        for name in names
        if not (found / name).exists()
        or (found / name).read_bytes() != (wanted / name).read_bytes()
    ]
    return f"differs: {', '.join(bad)}" if bad else f"equal, bitwise ({', '.join(names)})"


def left_in(folder: Path) -> str:
    """Return the names of what a command left, without our logs."""
    names = [p.name for p in sorted(folder.iterdir()) if p.suffix not in (".out", ".err")]
    return (
        ", ".join(name + ("/" if (folder / name).is_dir() else "") for name in names) or "nothing"
    )


def refused(process: Process, *words: str) -> list[str]:
    """Wait; return what is wrong unless it ended in one line with the words, exit code 2."""
    code, errors = process.wait(), process.errors
    problems = [] if code == 2 else [f"exit code {code}, 2 wanted"]
    if len(errors) != 1:
        problems.append(f"{len(errors)} lines of errors, 1 wanted")
    problems += [f"does not say {word!r}" for word in words if word not in " ".join(errors)]
    return problems


def finished(folder: Path, line: str) -> list[str]:
    """Run a command; return what is wrong unless it ends well."""
    process = Process(folder, line)
    code = process.wait()
    return [f"rerun: exit code {code}: {process.errors[:1]}"] if code else []


def packed_again(case: Case, folder: Path) -> tuple[str, list[str]]:
    """Give the packing command again; return how the store compares, and what is wrong."""
    problems = finished(folder, case.packing)
    again = "failed" if problems else difference(folder / STORE, case.out / "whole" / STORE)
    return again, problems + ([] if again.startswith("equal") else [again])


def trained_again(case: Case, folder: Path) -> tuple[str, list[str]]:
    """Give the training command again; return how the run compares, and what is wrong."""
    problems = finished(folder, case.training)
    again = "failed" if problems else run_difference(folder / "run", case.out / "whole" / "run")
    return again, problems + ([] if again.startswith("equal") else [again])


def appended(folder: Path) -> Callable[[], bool]:
    """Return the condition that packing has appended something."""
    facts = folder / f"{STORE}.partial" / "buckets" / "facts.bin"
    return lambda: facts.exists() and facts.stat().st_size > 0


def logged(process: Process, epoch: int) -> Callable[[], bool]:
    """Return the condition that training has logged a line of an epoch."""
    return lambda: f"[Train Epoch: {epoch}/" in process.out


def said(process: Process) -> str:
    """Return what to show of what a process said."""
    text = " / ".join(process.errors) or "-"
    return text.replace(str(process.folder.parent) + "/", "")


Fault = Callable[[Case], Row | None]


def kills_of_preprocess(case: Case, count: int = 20) -> Row:
    """Kill packing at random moments over its time, every third of them while it seals.

    A moment that came after the end is drawn again.
    """
    start, chance = time.monotonic(), random.Random(case.seed)
    timed = [packing_times(case) for _ in range(3)]
    packing_s, sealing_s = (min(times) for times in zip(*timed, strict=True))
    problems: list[str] = []
    where: dict[str, int] = {}
    kills, tries = 0, 0
    while kills < count and tries < 3 * count:
        tries += 1
        folder = case.folder("killed")
        process = Process(folder, case.packing)
        process.until(planned(process))
        delay = chance.uniform(0, packing_s)
        if kills % 3 == 2:
            process.until((folder / f"{STORE}.partial" / "shards").exists)
            delay = chance.uniform(0, sealing_s)
        time.sleep(delay)
        process.send(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            continue
        kills += 1
        state = killed_in(folder)
        where[state] = where.get(state, 0) + 1
        if state == "done":
            again = difference(folder / STORE, case.out / "whole" / STORE)
            bad = [] if again.startswith("equal") else [again]
        else:
            again, bad = packed_again(case, folder)
        problems += [f"kill {kills} ({state}, after {delay:.2f} s): {text}" for text in bad]
    problems += [f"only {kills} kills came in time"] if kills < count else []
    moments = ", ".join(f"{state} {n}" for state, n in sorted(where.items()))
    return Row(
        f"kill -9 of preprocess at {kills} random moments",
        f"({moments})",
        -9,
        f"{STORE}.partial/, or the whole store",
        "see problems" if problems else "equal, bitwise, each time",
        time.monotonic() - start,
        tuple(problems),
    )


def packing_times(case: Case) -> tuple[float, float]:
    """Return the seconds from the plan to the final name of the store, and from the first seal."""
    folder = case.folder("timed")
    timed = Process(folder, case.packing)
    timed.until(planned(timed))
    began = time.monotonic()
    timed.until((folder / f"{STORE}.partial" / "shards").exists)
    sealing = time.monotonic()
    timed.until((folder / STORE).exists)
    end = time.monotonic()
    timed.wait()
    return end - began, end - sealing


def planned(process: Process) -> Callable[[], bool]:
    """Return the condition that a command has said its plan, and begins."""
    return lambda: "plan: " in process.out


def killed_in(folder: Path) -> str:
    """Return what packing was doing when it was killed."""
    partial = folder / f"{STORE}.partial"
    if (folder / STORE).exists():
        return "done"
    if not (partial / "journal.json").exists():
        return "before the journal"
    if (partial / "shards").exists():
        return "sealing"
    journal = json.loads((partial / "journal.json").read_text())
    return "packing, some committed" if journal["images_done"] else "sampling or packing"


def truncated_source(case: Case) -> Row:
    """Cut the last stack before packing."""
    start, folder, stack = time.monotonic(), case.folder("cut"), case.last_stack()
    with lent(stack, case):
        os.truncate(stack, stack.stat().st_size // 2)
        process = Process(folder, case.packing)
        problems = refused(process, stack.name, "cut short")
        left = left_in(folder)
    if STORE in left.split(", "):
        problems.append("a store is there")
    again, bad = packed_again(case, folder)
    return row("source stack cut to half, before", process, left, again, start, problems + bad)


def truncated_meanwhile(case: Case) -> Row:
    """Cut the last stack while packing is under way."""
    start, folder, stack = time.monotonic(), case.folder("cut-meanwhile"), case.last_stack()
    with lent(stack, case):
        process = Process(folder, case.packing)
        came = process.stopped_when(appended(folder))
        os.truncate(stack, stack.stat().st_size // 2)
        process.send(signal.SIGCONT)
        problems = refused(process, stack.name, "again") + ([] if came else ["came too late"])
        left = left_in(folder)
    again, bad = packed_again(case, folder)
    return row("source stack cut to half, in mid-run", process, left, again, start, problems + bad)


def vanished_source(case: Case) -> Row:
    """Remove the last stack while packing is under way."""
    start, folder, stack = time.monotonic(), case.folder("vanished"), case.last_stack()
    with lent(stack, case):
        process = Process(folder, case.packing)
        came = process.stopped_when(appended(folder))
        stack.unlink()
        process.send(signal.SIGCONT)
        # A file that is open already can be read to its end.
        if process.wait() == 0:
            again = difference(folder / STORE, case.out / "whole" / STORE)
            problems = [] if again.startswith("equal") else [again]
            left = left_in(folder)
        else:
            problems = refused(process, stack.name, "put it back")
            left = left_in(folder)
    problems += [] if came else ["came too late"]
    if process.wait() != 0:
        again, bad = packed_again(case, folder)
        problems += bad
    return row("source stack removed, in mid-run", process, left, again, start, problems)


def flipped_byte(case: Case) -> Iterator[Row]:
    """Flip a byte of a shard; verify and train."""
    start, folder = time.monotonic(), case.folder("flipped")
    shutil.copytree(case.out / "whole" / STORE, folder / STORE)
    shard = sorted((folder / STORE / "shards").glob("*.b0.npy"))[1]
    data = bytearray(shard.read_bytes())
    place = 128 + (len(data) - 128) // 2
    data[place] ^= 1
    shard.write_bytes(data)
    process = Process(folder, f"verify {STORE}")
    problems = refused(process, shard.name, "rows ", "of shard 1")
    yield row("byte of a shard flipped: verify", process, "", "-", start, problems)
    start = time.monotonic()
    words = case.training.replace(f"{case.out}/whole/{STORE}", STORE)
    process = Process(folder, words)
    problems = refused(process, shard.name, "rows ", "of shard 1")
    left = left_in(folder)
    data[place] ^= 1
    shard.write_bytes(data)
    problems += finished(folder, f"verify {STORE}") + finished(folder, words)
    same = [
        digests(folder / "run")[name] == digests(case.out / "whole" / "run")[name]
        for name in ("z.3.npy",)
    ]
    again = "equal latents, bitwise" if all(same) else "differs"
    problems += [] if all(same) else [again]
    yield row("byte of a shard flipped: train_vae", process, left, again, start, problems)


def vanished_shard(case: Case) -> Row:
    """Remove a shard while training streams."""
    start, folder = time.monotonic(), case.folder("no-shard")
    process = Process(folder, case.training)
    came = process.stopped_when(logged(process, 2))
    shard = sorted((case.out / "whole" / STORE / "shards").glob("*.b0.npy"))[0]
    kept = shard.rename(case.out / "kept.npy")
    process.send(signal.SIGCONT)
    problems = refused(process, shard.name, "a shard is lost") + ([] if came else ["too late"])
    left = left_in(folder / "run")
    kept.rename(shard)
    again, bad = trained_again(case, folder)
    return row("shard removed in mid-training", process, left, again, start, problems + bad)


def killed_training(case: Case) -> Row:
    """Kill training in the middle of an epoch."""
    start, folder = time.monotonic(), case.folder("killed-training")
    process = Process(folder, case.training)
    came = process.until(logged(process, 2))
    process.send(signal.SIGKILL)
    process.wait()
    left = left_in(folder / "run")
    again, bad = trained_again(case, folder)
    problems = bad + ([] if came else ["came too late"])
    return row("kill -9 of train_vae in mid-epoch", process, left, again, start, problems)


def two_writers(case: Case) -> Row:
    """Start packing into a store that another process packs."""
    start, folder = time.monotonic(), case.folder("writers")
    first = Process(folder, case.packing)
    came = first.stopped_when(appended(folder))
    second = Process(folder, case.packing)
    problems = refused(second, "another process is writing it")
    left = left_in(folder)
    first.send(signal.SIGCONT)
    code = first.wait()
    problems += [f"the first: exit code {code}"] if code else []
    again = difference(folder / STORE, case.out / "whole" / STORE)
    problems += ([] if again.startswith("equal") else [again]) + ([] if came else ["too late"])
    again = f"the first went on: {again}"
    return row("two writers of one store", second, left, again, start, problems)


def two_trainers(case: Case) -> Row:
    """Start training into a folder that another process trains in."""
    start, folder = time.monotonic(), case.folder("trainers")
    first = Process(folder, case.training)
    came = first.stopped_when(logged(first, 1))
    second = Process(folder, case.training)
    problems = refused(second, "another process is training in it")
    left = left_in(folder)
    first.send(signal.SIGCONT)
    code = first.wait()
    problems += [f"the first: exit code {code}"] if code else []
    again = run_difference(folder / "run", case.out / "whole" / "run")
    problems += ([] if again.startswith("equal") else [again]) + ([] if came else ["too late"])
    again = f"the first went on: {again}"
    return row("two trainings in one folder", second, left, again, start, problems)


def readers_beside_training(case: Case) -> Row:
    """Read a store twice while it is trained on."""
    start, folder = time.monotonic(), case.folder("readers")
    training = Process(folder, case.training)
    came = training.until(logged(training, 1))
    store = case.out / "whole" / STORE
    readers = [
        Process(folder, f"verify {store}"),
        Process(folder, f"backproject_voxel {store} -D 32 -o map"),
    ]
    codes = [process.wait() for process in (*readers, training)]
    problems = [f"exit codes {codes}"] if any(codes) else []
    again = run_difference(folder / "run", case.out / "whole" / "run")
    problems += ([] if again.startswith("equal") else [again]) + ([] if came else ["too late"])
    again = f"training beside them: {again}"
    return row(
        "two readers (verify, backproject_voxel) while one trains",
        training,
        left_in(folder),
        again,
        start,
        problems,
    )


def newer_format(case: Case) -> Iterator[Row]:
    """Read a store of a later format."""
    for command in ("verify", "train_vae", "info"):
        start, folder = time.monotonic(), case.folder("newer")
        shutil.copytree(case.out / "whole" / STORE, folder / STORE)
        path = folder / STORE / "manifest.json"
        manifest: dict[str, Any] = json.loads(path.read_text())
        manifest["format"] += 1
        path.write_text(json.dumps(manifest))
        more = f"-o run {NETWORK}" if command == "train_vae" else ""
        process = Process(folder, f"{command} {STORE} {more}")
        problems = refused(process, STORE, "newer")
        yield row(f"store of a newer format: {command}", process, "", "-", start, problems)


def full_disk(case: Case) -> Iterator[Row]:
    """Pack onto a disk that is too small, and onto one that fills up; then make space."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        print("full disk: left out, as only root may mount a tmpfs", file=sys.stderr)
        return
    needed = sum(p.stat().st_size for p in (case.out / "whole" / STORE).rglob("*.npy"))
    with tmpfs(case.folder("disk"), needed // 2) as folder:
        start = time.monotonic()
        process = Process(folder, case.packing)
        problems = refused(process, "of disk", "are free there")
        left = left_in(folder)
        resize(folder, 3 * needed + (64 << 20))
        again, bad = packed_again(case, folder)
        yield row("disk too small from the start", process, left, again, start, problems + bad)

    def sealing(process: Process) -> bool:
        return (process.folder / f"{STORE}.partial" / "shards").exists()

    packing, training = (case.packing, packed_again), (case.training, trained_again)
    yield filled(case, packing, "packing", lambda p: appended(p.folder)())
    yield filled(case, packing, "sealing", sealing)
    yield filled(case, training, "training", lambda p: logged(p, 1)())


def filled(
    case: Case,
    work: tuple[str, Callable[[Case, Path], tuple[str, list[str]]]],
    what: str,
    moment: Callable[[Process], bool],
) -> Row:
    """Fill the disk at a moment of a command; make space and give the command again."""
    line, give_again = work
    size = 256 << 20
    with tmpfs(case.folder("disk"), size) as folder:
        start = time.monotonic()
        process = Process(folder, line)
        came = process.stopped_when(lambda: moment(process))
        fill(folder / "ballast.out")
        process.send(signal.SIGCONT)
        problems = refused(process, "again" if what != "packing" else "run the same command")
        left = left_in(folder)
        resize(folder, 2 * size)
        again, bad = give_again(case, folder)
        problems += bad + ([] if came else ["came too late"])
        return row(f"disk full while {what}", process, left, again, start, problems)


def dead_dask_worker(case: Case) -> Row | None:
    """Kill a worker of a local Dask cluster while it packs."""
    helped = subprocess.run(
        [sys.executable, "-m", "frazil.cli.main", "preprocess", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    if "--dask" not in helped.stdout:
        print("dead Dask worker: left out, as preprocess has no --dask", file=sys.stderr)
        return None
    start, alone, folder = time.monotonic(), case.folder("no-dask"), case.folder("dask")
    line = f"{case.packing} --precision float32"
    problems = (
        [] if Process(alone, line, PLAIN_PROGRAM).wait() == 0 else ["no store to compare with"]
    )
    process = Process(folder, f"{line} --dask local", PLAIN_PROGRAM)
    partial = folder / f"{STORE}.partial"
    came = process.until(lambda: bool(workers_of(process)) and partial.exists())
    workers = workers_of(process)
    if workers:
        os.kill(workers[0], signal.SIGKILL)
    code = process.wait()
    problems += [f"exit code {code}: {process.errors[:1]}"] if code else []
    problems += [] if came and workers else ["no worker was killed"]
    again = "failed" if code else difference_but_command(folder / STORE, alone / STORE)
    problems += [] if again.startswith("equal") else [again]
    return row("a Dask worker killed", process, left_in(folder), again, start, problems)


def difference_but_command(found: Path, wanted: Path) -> str:
    """As `difference`, but for the command that the manifest keeps."""
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (found, wanted)]
    for manifest in manifests:
        del manifest["command"]
    if manifests[0] != manifests[1]:
        return "differs: manifest.json"
    shutil.copy(wanted / "manifest.json", found / "manifest.json")
    return difference(found, wanted) + " (but for the command)"


def workers_of(process: Process) -> list[int]:
    """Return the processes below a command that are Dask workers."""
    found, todo = [], [process.pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            with suppress(OSError):  # it ended meanwhile
                children = [int(text) for text in task.read_text().split()]
                todo += children
                found += children
    return [pid for pid in found if _is_worker(Path(f"/proc/{pid}/cmdline"))]


def _is_worker(command: Path) -> bool:
    try:
        words = command.read_bytes()
    except OSError:
        return False
    return b"multiprocessing" in words and b"resource_tracker" not in words


def row(
    fault: str, process: Process, left: str, again: str, start: float, problems: list[str]
) -> Row:
    """Return the row of a fault that one process met."""
    seconds = time.monotonic() - start
    return Row(fault, said(process), process.wait(), left, again, seconds, tuple(problems))


@contextmanager
def lent(path: Path, case: Case) -> Iterator[None]:
    """Put a file back as it was, with its time, whatever is done to it."""
    kept = case.out / "kept.bin"
    shutil.copy2(path, kept)
    try:
        yield
    finally:
        shutil.copy2(kept, path)
        kept.unlink()


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """Mount a tmpfs of a size at a folder, and unmount it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    """Make a mounted tmpfs larger."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write a file that takes all space that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


FAULTS: tuple[Callable[[Case], Any], ...] = (
    truncated_source,
    truncated_meanwhile,
    vanished_source,
    two_writers,
    full_disk,
    flipped_byte,
    vanished_shard,
    killed_training,
    two_trainers,
    readers_beside_training,
    newer_format,
    dead_dask_worker,
    kills_of_preprocess,
)


def rows_of(fault: Callable[[Case], Any], case: Case) -> Iterator[Row]:
    """Yield the rows of a fault, which may be none, one or several."""
    found = fault(case)
    if isinstance(found, Row):
        yield found
    elif found is not None:
        yield from found


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| fault | frazil said | exit | left on disk | given again | met |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        met = "yes" if not r.problems else "**no**: " + "; ".join(r.problems)
        cells = (r.fault, r.said, str(r.exit_code), r.left, r.again, met)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the set, an undisturbed store and run, and then the faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="scratch folder")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="write the rows as Markdown here")
    parser.add_argument("--only", nargs="*", help="names of the functions of this file to run")
    args = parser.parse_args()
    case = Case(args.out.resolve(), args.images, args.seed)
    case.out.mkdir(parents=True, exist_ok=True)
    make = f"simulate -n {args.images} -D {args.box} --stacks 4 --snr 0.1 -o set --overwrite"
    problems = finished(case.out, make)
    whole = case.folder("whole")
    problems += finished(whole, case.packing) or finished(whole, case.training)
    if problems:
        raise SystemExit(f"the undisturbed run failed: {problems}")
    rows = []
    for fault in FAULTS:
        if args.only and fault.__name__ not in args.only:
            continue
        for found in rows_of(fault, case):
            rows.append(found)
            print(json.dumps({**asdict(found), "met": not found.problems}), flush=True)
            if args.table:
                args.table.write_text(table(rows))
    if any(found.problems for found in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
