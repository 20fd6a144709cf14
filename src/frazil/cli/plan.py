"""Say what packing and training will take: disk, memory, time and what limits it.

Only headers are read, and a sample of at most 256 MB to measure the disk. Exit code 2: it cannot
fit; the line says which change would make it fit.

  frazil plan particles.star --datadir DIR -D 128 -o /scratch/particles.frz
  frazil plan particles.frz -D 64 --memory 4G --zdim 8 --json
"""

import argparse

from frazil.cli.flags import add_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of plan."""
    from frazil.analysis.plan_settings import PlanSettings
    from frazil.preprocess.settings import InputSettings, PackSettings

    for settings in (InputSettings, PackSettings, PlanSettings):
        add_settings(parser, settings)
    parser.add_argument("--json", action="store_true", help="one object, for machines")


def run(args: argparse.Namespace) -> None:
    """Print the plan; refuse what cannot fit."""
    import json

    from frazil.analysis.plan import make_plan
    from frazil.analysis.plan_settings import PlanSettings
    from frazil.preprocess.settings import InputSettings, PackSettings

    plan = make_plan(
        read_settings(args, InputSettings),
        read_settings(args, PackSettings),
        read_settings(args, PlanSettings),
    )
    if args.json:
        refused = None if plan.refusal is None else str(plan.refusal)
        print(json.dumps({**plan.facts.to_json(), "refused": refused}, indent=1))
    else:
        print("\n".join(plan.facts.lines()))
    if plan.refusal is not None:
        raise plan.refusal
