"""Packing on the way to something else: the plan is said first, and what cannot fit is refused.

Owns: the order of plan, refusal and packing. Does not own: each of them (`plan`, `report`,
`pipeline`).
"""

from collections.abc import Callable
from pathlib import Path

from frazil.io.particles import ParticleTable
from frazil.preprocess.inputs import image_fingerprint, used_sources
from frazil.preprocess.pipeline import open_or_pack
from frazil.preprocess.plan import check_plan, plan_packing, settings_within
from frazil.preprocess.report import describe_plan
from frazil.preprocess.settings import PackSettings
from frazil.store.manifest import MANIFEST_NAME, read_manifest
from frazil.store.reader import ParticleStore


def plan_and_pack(
    table: ParticleTable, out: Path, settings: PackSettings, say: Callable[[str], None]
) -> ParticleStore:
    """Return a store of the table's images, as `open_or_pack`; says its plan if it has to pack.

    Raises
    ------
    BudgetError : memory or disk is too small; names a change that would make it fit.
    """
    if not _is_packed(table, out, settings):
        plan = plan_packing(table, out, settings)
        for line in describe_plan(plan):
            say(line)
        check_plan(plan)
        settings = settings_within(plan, settings)
    return open_or_pack(table, out, settings)


def _is_packed(table: ParticleTable, out: Path, settings: PackSettings) -> bool:
    """Return whether the store at `out` holds these images, packed with these settings."""
    if not (out / MANIFEST_NAME).is_file():
        return False
    return read_manifest(out).fingerprint == image_fingerprint(used_sources(table), settings)
