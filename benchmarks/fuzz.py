"""Fuzzing at length: valid files of every kind, damaged at random and read again and again.

Each input may end in two ways: it is read, or it is refused in one line. Never a traceback, more
than 20 s of work, more memory than the file's size allows, code run or a file written (see
tests/fuzz/guard.py). Printed is a JSON line per reader: how many inputs were tried, how each ended,
inputs per second of the processor, and what was broken, with the seeds that show it again
(--seed N --inputs 1 --readers NAME). Exit code 1 when anything was.

    python benchmarks/fuzz.py --inputs 20000
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fuzz.guard import BrokenPromiseError, read_guarded  # noqa: E402
from tests.fuzz.readers import MARK, READERS  # noqa: E402


def fuzz(name: str, folder: Path, seeds: range) -> dict[str, object]:
    """Return how the inputs of one reader ended, by error, and the seeds of broken promises."""
    reader = READERS[name](folder)
    reader.read(reader.valid())  # what is imported late is imported now
    ends: Counter[str] = Counter()
    broken: dict[str, list[int]] = {}
    started = time.process_time()
    for seed in seeds:
        path, size_bytes = reader.damage(Random(seed))
        try:
            ends[read_guarded(reader.read, path, size_bytes)] += 1
        except BrokenPromiseError as error:
            ends["broken"] += 1
            cause = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1]
            where = f"{Path(cause.filename).name}:{cause.lineno}"
            broken.setdefault(f"{where} {str(error)[:200]}", []).append(seed)
    return {
        "reader": name,
        "inputs": len(seeds),
        "ends": dict(ends.most_common()),
        "inputs_per_cpu_s": round(len(seeds) / (time.process_time() - started), 1),
        "broken": {what: (len(found), found[:3]) for what, found in broken.items()},
        "code_run": Path(MARK).exists(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first input")
    parser.add_argument("--readers", nargs="+", default=[*READERS], choices=READERS)
    args = parser.parse_args()
    good = True
    for name in args.readers:
        with tempfile.TemporaryDirectory() as folder:
            seeds = range(args.seed, args.seed + args.inputs)
            result = fuzz(name, Path(folder) / name, seeds)
        good = good and not result["broken"] and not result["code_run"]
        print(json.dumps(result), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
