"""What preflight says of data with a known mistake: the table of confusions, as JSON lines.

Every simulated set is taken as it is, and with each mistake of `tests/engines/preflight_case.py`
in it; a line says what was expected, what was named, whether both agree, and the CPU seconds.

  python -m benchmarks.preflight_confusions FOLDER [--images N] [--sets NAME ...] > lines.jsonl
  python -m benchmarks.preflight_confusions FOLDER --table lines.jsonl
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from tests.engines.preflight_case import EXPECTED, simulated_store, with_mistake

from frazil.engines.preflight.run import preflight
from frazil.engines.preflight.settings import PreflightSettings

PREFERRED = "preferred orientation"
COMMON = {"box_px": 48, "shift_px": 2.0}
SETS: dict[str, dict[str, Any]] = {
    "arm, SNR 0.1": {"snr": 0.1, "seed": 1},
    "arm, SNR 0.01": {"snr": 0.01, "seed": 2, "noise": "coloured"},
    "assembly, SNR 0.03": {
        "snr": 0.03,
        "seed": 3,
        "molecule": "assembly",
        "motion": "composition",
        "contrast_std": 0.2,
        "group_noise": (1.0, 1.5),
    },
    "mixture, SNR 0.05, poor poses": {
        "snr": 0.05,
        "seed": 4,
        "motion": "mixture",
        "pose_error_deg": 4.0,
        "shift_error_px": 0.5,
        "outliers": 0.05,
    },
}
# Correct data that are too noisy, and views that are preferred: nothing else is put into them.
ALONE: dict[str, tuple[dict[str, Any], set[str]]] = {
    "arm, SNR 0.001": ({"snr": 0.001, "seed": 5}, set()),
    "arm, SNR 0.0003": ({"snr": 0.0003, "seed": 6}, set()),
    "arm, SNR 0.00003": ({"snr": 0.00003, "seed": 7}, set()),
    "assembly, SNR 0.0001": ({"snr": 0.0001, "seed": 8, "molecule": "assembly"}, set()),
    "arm, no noise": ({"snr": float("inf"), "seed": 9}, set()),
    "arm, views exp(8 cos^2)": ({"snr": 0.05, "seed": 10, "preferred": 8.0}, {PREFERRED}),
    "arm, views exp(1 cos^2)": ({"snr": 0.05, "seed": 11, "preferred": 1.0}, set()),
}


def measure(store: Any, name: str, mistake: str, expected: set[str]) -> None:
    """Print the line of one preflight."""
    start = time.process_time()
    report = preflight(store, PreflightSettings()).report
    named = {finding.name for finding in report.findings if finding.kind != "unknown"}
    line = {
        "set": name,
        "mistake": mistake,
        "expected": sorted(expected),
        "named": sorted(named),
        "agree": named == expected,
        "verdict": report.verdict,
        "said": [finding.line() for finding in report.findings],
        "poses_sigma": round(report.poses, 1),
        "efficiency": round(report.efficiency, 2),
        "cpu_s": round(time.process_time() - start, 1),
    }
    print(json.dumps(line), flush=True)


def table(path: Path) -> None:
    """Print the table of a file of lines: rows injected, columns sets, cells what was named."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = list(dict.fromkeys(line["set"] for line in lines if line["set"] in SETS))
    print("| injected | " + " | ".join(names) + " |\n|---" * 1 + "|---" * len(names) + "|")
    for mistake in EXPECTED:
        cells = []
        for name in names:
            found = [x for x in lines if (x["set"], x["mistake"]) == (name, mistake)]
            cells.append(_cell(found[0]) if found else "")
        print(f"| {mistake} | " + " | ".join(cells) + " |")
    print("\n| correct data | named | verdict | sigmas of the poses |\n|---|---|---|---|")
    for line in lines:
        if line["set"] in ALONE:
            named = ", ".join(line["named"]) or "-"
            print(f"| {line['set']} | {named} | {line['verdict']} | {line['poses_sigma']} |")
    right = sum(line["agree"] for line in lines)
    print(f"\n{right} of {len(lines)} as expected")


def _cell(line: dict[str, Any]) -> str:
    named = ", ".join(line["named"]) or line["verdict"]
    return named if line["agree"] else f"**{named}**"


def main() -> None:
    """Run the sets asked for, or print the table of lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where sets are simulated, and kept")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--sets", nargs="+", default=[*SETS, *ALONE])
    parser.add_argument("--mistakes", nargs="+", default=list(EXPECTED))
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        table(args.table)
        return
    for name in args.sets:
        folder = args.folder / name.replace(" ", "_").replace(",", "")
        if name in ALONE:
            settings, expected = ALONE[name]
            store = simulated_store(folder, num=args.images, **{**COMMON, **settings})
            measure(store, name, "none", expected)
            continue
        store = simulated_store(folder, num=args.images, **{**COMMON, **SETS[name]})
        for mistake in args.mistakes:
            measure(with_mistake(folder, store, mistake), name, mistake, EXPECTED[mistake])


if __name__ == "__main__":
    main()
