"""Packing: from a particle table and its stacks to a committed store, in one pass.

Owns: the pre-sample, the threads, the order of writing, row accounting and the manifest. Does not
own: the maths of one image (`steps`), the statistics' formulas, the comparison with the source
(`audit`) or the bytes (`frazil.store`).
"""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch

from frazil import __version__
from frazil.errors import CorruptDataError, InputError
from frazil.geometry.packing import TILE_PX
from frazil.io.images import ImageSource, open_images
from frazil.io.particles import FLAG_CLIPPED, FLAG_CONSTANT, FLAG_NONFINITE, ParticleTable
from frazil.preprocess.audit import audited_rows, read_back
from frazil.preprocess.blocks import Block, encode_block
from frazil.preprocess.inputs import (
    DistinctImages,
    image_fingerprint,
    one_pixel_size,
    source_file,
    used_sources,
)
from frazil.preprocess.parallel import image_bar, one_torch_thread, ordered_map, progress
from frazil.preprocess.settings import WINDOW_OUTER, PackSettings
from frazil.preprocess.statistics import (
    ShellStatistics,
    reference_shell_rms,
    shell_power,
)
from frazil.preprocess.steps import SUB_BATCH, packed_coefficients, plan_transform
from frazil.store.codec import Codec, shell_steps
from frazil.store.manifest import (
    MANIFEST_NAME,
    BandRecord,
    Manifest,
    OpticsGroup,
    Processing,
    ShellTable,
    check_box,
    shell_counts,
)
from frazil.store.reader import ParticleStore
from frazil.store.writer import (
    BLOCK_ROWS,
    StorePlan,
    StoreWriter,
    rows_per_shard,
)

# Images read twice to set the shell table: a twentieth of the set, within these bounds.
SAMPLE_IMAGES = 2048
FEWEST_SAMPLED = 256
TASK_BYTES = 16 << 20
APPEND_BYTES = 64 << 20
COMMIT_BYTES = 1 << 30


def pack(
    table: ParticleTable,
    out: Path,
    settings: PackSettings,
    dropped: dict[str, int] | None = None,
    command: str = "",
) -> ParticleStore:
    """Pack the particles of a table into a store and return it, opened.

    Parameters
    ----------
    table : particles in input order; poses and CTF travel into the store when present.
    out : NAME.frz, made at the end; until then NAME.frz.partial, from which a second call goes on.
    dropped : reason -> number of rows of the input that are not in the table.
    command : how the store was asked for, for its provenance.

    Raises
    ------
    InputError : box odd or too large, mixed pixel sizes, no particles, poses or CTF in some rows
        only, non-finite images under `strict`.
    CorruptDataError : images read back from the source are not those that were packed.
    OutputExistsError, CorruptDataError, BudgetError, MissingFileError : see `StoreWriter`,
        `open_images`.
    """
    if not len(table):
        raise InputError(f"{table.origin}: no particles to pack")
    table = used_sources(table)
    images = open_images(table)
    box_px = settings.box_px or images.box_px
    check_box(box_px, images.box_px, "the images")
    if images.domain == "hartley" and box_px != images.box_px:
        raise InputError(
            f"{table.origin}: holds Fourier images of {images.box_px} px; leave -D out"
        )
    pixel_size = one_pixel_size(table)
    packing = _Packing(table, images, settings)
    with StoreWriter(out, packing.plan, settings.overwrite) as writer, one_torch_thread():
        packing.run(writer)
        facts, statistics = writer.facts(), packing.statistics
        bad = np.flatnonzero(facts["flags"] & FLAG_NONFINITE)
        rows = packing.final_rows(writer, facts)
        if bad.size and settings.strict:
            row = int(packing.distinct.rows[bad[0]])
            raise InputError(
                f"{packing.describe_row(row)} has non-finite pixels ({bad.size} images do); "
                "leave --strict out to flag them and go on"
            )

        notes: list[str] = []

        def manifest(checksums: dict[str, str]) -> Manifest:
            made = packing.manifest(statistics, rows, pixel_size, checksums, dropped or {}, command)
            # All but the manifest is on disk, and nothing has its final name yet.
            notes.append(packing.audit(ParticleStore.of(writer.folder, made)))
            return made

        frequencies = torch.stack([packing.transform.disc.kx, packing.transform.disc.ky], 1)
        arrays = {"particles": rows, "frequencies": frequencies.numpy().astype(np.int16)}
        writer.finish(arrays, manifest, lambda shards: progress(shards, "sealing", "shard"))
    return replace(ParticleStore.open(out), notes=tuple(notes))


class _Packing:
    """The state of one packing: what is fixed at the start, and the statistics that grow."""

    def __init__(self, table: ParticleTable, images: ImageSource, settings: PackSettings) -> None:
        self.table, self.images, self.settings = table, images, settings
        # Asked before anything is read: a mixture is refused.
        self.has_pose, self.has_shift, self.has_ctf = (
            table.has_pose,
            table.has_shift,
            table.has_ctf,
        )
        self.distinct = DistinctImages.of(table)
        self.transform = plan_transform(settings, images.box_px, images.domain)
        self.counts = shell_counts(self.transform.box_px)
        groups = table.rows["optics_group"][self.distinct.rows]
        self.group_names = (
            [*table.optics_groups, "(none)"] if (groups < 0).any() else list(table.optics_groups)
        )
        self.group = np.where(groups < 0, len(self.group_names) - 1, groups)
        self.statistics = ShellStatistics.zeros(len(self.group_names), len(self.counts))
        self.plan = self._plan()

    def _plan(self) -> StorePlan:
        values = 2 * len(self.transform.disc)
        item = np.dtype(self.settings.precision).itemsize
        return StorePlan(
            images=len(self.distinct.rows),
            record_values=values,
            value_type=self.settings.precision,
            bands=[BandRecord(*band) for band in self.transform.disc.bands],
            rows_per_shard=rows_per_shard(values * item),
            block_rows=BLOCK_ROWS,
            seed=self.settings.seed,
            fingerprint=image_fingerprint(self.table, self.settings),
        )

    def run(self, writer: StoreWriter) -> None:
        """Read, transform and append all images that the writer does not have yet."""
        if writer.state is None:
            writer.commit({"reference": self._reference().tolist()})
        reference = np.asarray(writer.state["reference"])
        if "statistics" in writer.state:
            self.statistics = ShellStatistics.from_json(writer.state["statistics"])
        steps = shell_steps(reference, self.settings.precision)
        codec = Codec.from_shells(self.settings.precision, steps, self.transform.disc)
        self.steps = steps
        task = self._task_images()
        starts = range(writer.images_done, self.plan.images, task)

        def work(start: int) -> Block:
            part = slice(start, start + task)
            images = self.images.read(self.distinct.rows[part])
            groups = (self.group[part], len(self.group_names))
            return encode_block(images, groups, self.transform, codec, reference)

        pending: list[Block] = []
        uncommitted = 0
        image_bytes = self.images.bytes_of([0])
        with image_bar(self.plan.images, "packing", image_bytes, writer.images_done) as advance:
            for block in ordered_map(work, starts, self.settings.max_threads):
                pending.append(block)
                self.statistics.add(block.statistics)
                advance(len(block.facts))
                waiting = sum(b.records.nbytes for b in pending)
                if waiting >= APPEND_BYTES:
                    uncommitted += _append_all(writer, pending)
                if uncommitted >= COMMIT_BYTES:
                    self._commit(writer)
                    uncommitted = 0
            _append_all(writer, pending)
        self._commit(writer)

    def _commit(self, writer: StoreWriter) -> None:
        state = {**writer.state, "statistics": self.statistics.to_json()}
        writer.commit(state)

    def _task_images(self) -> int:
        side = self.images.box_px + 1
        return max(1, TASK_BYTES // (4 * side * side * SUB_BATCH)) * SUB_BATCH

    def _reference(self) -> np.ndarray:
        """Return the shell RMS of a random sample, spread over all files and optics groups."""
        count = min(SAMPLE_IMAGES, max(FEWEST_SAMPLED, self.plan.images // 20), self.plan.images)
        generator = np.random.Generator(np.random.PCG64(self.settings.seed))
        chosen = np.sort(generator.choice(self.plan.images, count, replace=False))
        task = self._task_images()

        def work(start: int) -> np.ndarray:
            rows = self.distinct.rows[chosen[start : start + task]]
            images = torch.from_numpy(self.images.read(rows))
            return shell_power(packed_coefficients(images, self.transform), self.transform.disc)

        starts = range(0, count, task)
        parts = ordered_map(work, starts, self.settings.max_threads)
        power = list(progress(parts, "sampling", "block", len(starts)))
        return reference_shell_rms(np.concatenate(power), self.counts)

    def final_rows(self, writer: StoreWriter, facts: np.ndarray) -> np.ndarray:
        """Return particles.npy: the table's rows with their place, gain and flags."""
        rows = self.table.rows.copy()
        image = self.distinct.image_of_row
        rows["shard"], rows["slot"] = writer.shard[image], writer.slot[image]
        rows["image_gain"], rows["flags"] = facts["gain"][image], facts["flags"][image]
        return rows

    def describe_row(self, row: int) -> str:
        """Return where a table row's image comes from."""
        place = self.table.rows[row]
        path = self.table.sources[place["source"]]
        return f"{self.table.origin}: row {row} (0-based; image {place['index'] + 1} of {path})"

    def audit(self, store: ParticleStore) -> str:
        """Read a sample of rows back from the source; return the line that says so.

        Raises
        ------
        CorruptDataError : a row of the store is not its image; names row, stack and image.
        """
        rows = audited_rows(len(self.table), self.settings.seed)
        found = read_back(store, self.images, self.transform, rows)
        if found.bad_rows:
            raise CorruptDataError(
                f"{self.describe_row(found.bad_rows[0])} is not what was packed "
                f"({len(found.bad_rows)} of {found.images} images read back differ); the stack "
                f"changed meanwhile, or memory or disk is faulty: remove {store.path} "
                "and pack again"
            )
        return found.describe()

    def manifest(
        self,
        statistics: ShellStatistics,
        rows: np.ndarray,
        pixel_size_ang: float | None,
        checksums: dict[str, str],
        dropped: dict[str, int],
        command: str,
    ) -> Manifest:
        """Return the manifest of the finished store."""
        settings, table, plan = self.settings, self.table, self.plan
        done_before = self.images.domain == "hartley"
        window = (settings.window_r, WINDOW_OUTER) if settings.window and not done_before else None
        flags = {"nonfinite": FLAG_NONFINITE, "clipped": FLAG_CLIPPED, "constant": FLAG_CONSTANT}
        box = self.transform.box_px
        return Manifest(
            program=f"frazil {__version__}",
            command=command,
            box_px=box,
            pixel_size_ang=(
                None if pixel_size_ang is None else pixel_size_ang * self.images.box_px / box
            ),
            processing=Processing(
                source_box_px=self.images.box_px,
                order=settings.window_order,
                window=window,
                sign=1 if settings.uninvert_data or done_before else -1,
            ),
            precision=settings.precision,
            tile_px=TILE_PX,
            bands=plan.bands,
            particles=len(rows),
            images=plan.images,
            rows_per_shard=plan.rows_per_shard,
            block_rows=plan.block_rows,
            shard_rows=plan.shard_rows,
            seed=plan.seed,
            shells=ShellTable(
                step=self.steps.tolist(),
                rms=statistics.rms(self.counts),
                error_rms=statistics.error_rms(self.counts),
                clipped=statistics.clipped.tolist(),
            ),
            optics=[
                OpticsGroup(name, int(statistics.images[i]), statistics.rms(self.counts, i))
                for i, name in enumerate(self.group_names)
            ],
            groups=list(table.groups),
            blob_sign=table.blob_sign,
            has_pose=self.has_pose,
            has_shift=self.has_shift,
            has_ctf=self.has_ctf,
            rows_in=len(rows) + sum(dropped.values()),
            dropped=dropped,
            flagged={name: int((rows["flags"] & bit > 0).sum()) for name, bit in flags.items()},
            origin=table.origin,
            sources=[source_file(path) for path in table.sources],
            fingerprint=plan.fingerprint,
            file_checksums=checksums,
        )


def open_or_pack(
    table: ParticleTable, out: Path, settings: PackSettings, command: str = ""
) -> ParticleStore:
    """Return a store of the table's images, reusing the one at `out` when nothing changed.

    The metadata are always those of the table. A store of other images or settings at `out` is
    replaced.
    """
    if (out / MANIFEST_NAME).is_file():
        table = used_sources(table)
        store = ParticleStore.open(out)
        if store.manifest.fingerprint == image_fingerprint(table, settings):
            return store.with_rows(table.rows)
        settings = msgspec.structs.replace(settings, overwrite=True)
    return pack(table, out, settings, command=command)


def _append_all(writer: StoreWriter, pending: list[Block]) -> int:
    """Append and forget the pending blocks; return their bytes."""
    if not pending:
        return 0
    records = np.concatenate([block.records for block in pending])
    writer.append(records, np.concatenate([block.facts for block in pending]))
    pending.clear()
    return records.nbytes
