"""Packing: from a particle table and its stacks to a committed store, in one pass.

Owns: the threads, the order of writing, row accounting and the manifest. Does not own: the encoding
of images (`prepared`), the statistics' formulas, the comparison with the source (`audit`) or the
bytes (`frazil.store`).
"""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch

from frazil import __version__
from frazil.errors import CorruptDataError, InputError, OutputExistsError, StoppedError
from frazil.geometry.packing import TILE_PX
from frazil.io.accounts import RowAccount
from frazil.io.particles import (
    FLAG_CONSTANT,
    FLAG_LEFT_OUT,
    FLAG_NONFINITE,
    FLAGS,
    FLAGS_BAD,
    ParticleTable,
)
from frazil.preprocess.audit import audited_rows, joined_audits, read_back
from frazil.preprocess.blocks import Block
from frazil.preprocess.cluster import DaskWorkers
from frazil.preprocess.inputs import image_fingerprint, source_file, used_sources
from frazil.preprocess.monitor import BarMonitor, PackMonitor
from frazil.preprocess.parallel import one_torch_thread, ordered_map
from frazil.preprocess.prepared import CodeScale, PreparedImages
from frazil.preprocess.screen_files import write_screen_files
from frazil.preprocess.screening import Screening, screen
from frazil.preprocess.settings import WINDOW_OUTER, PackSettings
from frazil.preprocess.statistics import ShellStatistics
from frazil.store.manifest import (
    MANIFEST_NAME,
    BandRecord,
    Manifest,
    OpticsGroup,
    Processing,
    ShellTable,
)
from frazil.store.reader import ParticleStore
from frazil.store.writer import (
    BLOCK_ROWS,
    StorePlan,
    StoreWriter,
    rows_per_shard,
)

APPEND_BYTES = 32 << 20
COMMIT_BYTES = 1 << 30


def pack(
    table: ParticleTable,
    out: Path,
    settings: PackSettings,
    account: RowAccount | None = None,
    command: str = "",
    monitor: PackMonitor | None = None,
    workers: DaskWorkers | None = None,
) -> ParticleStore:
    """Pack the particles of a table into a store and return it, opened.

    Parameters
    ----------
    table : particles in input order; poses and CTF travel into the store when present.
    out : NAME.frz, made at the end; until then NAME.frz.partial, from which a second call goes on.
    account : rows of the input that are not in the table, and why; default, there are none.
    command : how the store was asked for, for its provenance.
    monitor : who watches, and may stop it; default, bars on stderr.
    workers : who encodes and seals; default, threads of this process. The store is the same.

    Raises
    ------
    StoppedError : the monitor says so; what was packed is kept, and gone on with by a second call.
    InputError : box odd or too large, pixel sizes that cannot be brought to one, no particles,
        poses or CTF in some rows only, bad images under `strict`.
    CorruptDataError : images read back from the source are not those that were packed.
    OutputExistsError, CorruptDataError, BudgetError, MissingFileError : see `StoreWriter`,
        `open_images`.
    """
    # Whoever watches may read the same files meanwhile.
    prepared = PreparedImages.of(table, settings, past_cache=monitor is None)
    monitor = monitor or BarMonitor()
    packing = _Packing(prepared)
    with StoreWriter(out, packing.plan, settings.overwrite) as writer, one_torch_thread():
        facts = packing.run(writer, monitor, workers)
        screening = packing.screen(facts)
        if settings.strict:
            packing.refuse_bad(screening)
        rows = packing.final_rows(writer, facts, screening)
        notes = list(screening.notes)

        def manifest(checksums: dict[str, str]) -> Manifest:
            made = packing.manifest(
                rows, checksums, account or RowAccount.all_of(len(rows)), command
            )
            # All but the manifest is on disk, and nothing has its final name yet.
            store = ParticleStore.of(writer.folder, made)
            notes.append(packing.audit(store))
            write_screen_files(writer.folder, store, prepared, screening)
            return made

        disc = prepared.transform.disc
        frequencies = torch.stack([disc.kx, disc.ky], 1)
        arrays = {"particles": rows, "frequencies": frequencies.numpy().astype(np.int16)}
        if workers is None:
            sums = writer.seal(lambda shards: monitor.items(shards, "sealing", "shard"))
        else:
            sums = workers.seal(writer, monitor)
        writer.finish(arrays, sums, manifest)
    return replace(ParticleStore.open(out), notes=tuple(notes))


class _Packing:
    """The state of one packing: what is fixed at the start, and the statistics that grow."""

    def __init__(self, prepared: PreparedImages) -> None:
        self.prepared = prepared
        self.statistics = ShellStatistics.zeros(len(prepared.group_names), len(prepared.counts))
        self.plan = self._plan()

    def _plan(self) -> StorePlan:
        prepared, settings = self.prepared, self.prepared.settings
        disc = prepared.transform.disc
        item = np.dtype(settings.precision).itemsize
        return StorePlan(
            images=len(prepared),
            record_values=2 * len(disc),
            value_type=settings.precision,
            bands=[BandRecord(*band) for band in disc.bands],
            rows_per_shard=rows_per_shard(2 * len(disc) * item),
            block_rows=BLOCK_ROWS,
            seed=settings.seed,
            fingerprint=image_fingerprint(prepared.table, settings),
        )

    def run(
        self, writer: StoreWriter, monitor: PackMonitor, workers: DaskWorkers | None
    ) -> np.ndarray:
        """Encode all images that the writer does not have yet; return the facts of all."""
        prepared, in_parts = self.prepared, workers is not None
        if writer.state is None:
            known = monitor.reference
            reference = prepared.reference() if known is None else known
            writer.commit({"reference": reference.tolist(), "parts": in_parts})
        elif writer.state.get("parts", False) != in_parts:
            flag = "without --dask" if in_parts else "with --dask"
            raise OutputExistsError(
                f"{writer.folder}: was begun {flag}; go on in the same way, or give --overwrite"
            )
        scale = prepared.scale(np.asarray(writer.state["reference"]))
        self.steps = scale.steps
        if workers is not None:
            facts, self.statistics = workers.encode(writer, prepared, scale, monitor)
            return facts
        self._append_images(writer, scale, monitor)
        return writer.facts()

    def _append_images(self, writer: StoreWriter, scale: CodeScale, monitor: PackMonitor) -> None:
        """Read, transform and append images by threads of this process."""
        prepared = self.prepared
        if "statistics" in writer.state:
            self.statistics = ShellStatistics.from_json(writer.state["statistics"])
        task = prepared.task_images
        starts = range(writer.images_done, self.plan.images, task)

        def work(start: int) -> Block:
            return prepared.encode(slice(start, start + task), scale)

        pending: list[Block] = []
        uncommitted = 0
        image_bytes = prepared.images.bytes_of([0])
        watched = monitor.images(self.plan.images, "packing", image_bytes, writer.images_done)
        try:
            with watched as advance:
                for block in ordered_map(work, starts, prepared.settings.max_threads):
                    pending.append(block)
                    self.statistics.add(block.statistics)
                    advance(len(block.facts))
                    waiting = sum(b.records.nbytes for b in pending)
                    if waiting >= APPEND_BYTES:
                        uncommitted += _append_all(writer, pending)
                    if uncommitted >= COMMIT_BYTES:
                        self._commit(writer)
                        uncommitted = 0
        except StoppedError:
            self._keep(writer, pending)
            raise
        self._keep(writer, pending)

    def _keep(self, writer: StoreWriter, pending: list[Block]) -> None:
        """Append what is pending and commit."""
        _append_all(writer, pending)
        self._commit(writer)

    def _commit(self, writer: StoreWriter) -> None:
        state = {**writer.state, "statistics": self.statistics.to_json()}
        writer.commit(state)

    def screen(self, facts: np.ndarray) -> Screening:
        """Return the flags of all images, those that --drop-bad leaves out marked."""
        prepared = self.prepared
        pixels = prepared.images.domain == "real"
        found = screen(facts, prepared.group, prepared.group_names, pixels)
        if not prepared.settings.drop_bad:
            return found
        bad = (found.flags & FLAGS_BAD > 0) & (found.flags & FLAG_NONFINITE == 0)
        left_out = np.where(bad, FLAG_LEFT_OUT, 0).astype(np.uint32)
        return replace(found, flags=found.flags | left_out)

    def refuse_bad(self, screening: Screening) -> None:
        """Raise InputError naming the first row whose image is bad, if any is."""
        bad = np.flatnonzero(screening.flags & FLAGS_BAD)
        if not bad.size:
            return
        rows = self.prepared.distinct.rows[bad]
        first = int(np.argmin(rows))
        flags, image = screening.flags[bad[first]], bad[first]
        if flags & FLAG_NONFINITE:
            what = "has non-finite pixels"
        elif flags & FLAG_CONSTANT:
            what = "has pixels that are all equal"
        else:
            outlier = int(np.searchsorted(screening.outliers, image))
            what = f"is far from the others: {screening.reasons(outlier)}"
        raise InputError(
            f"{self.prepared.describe_row(int(rows[first]))} {what} ({bad.size} images are bad); "
            "leave --strict out to flag them and go on"
        )

    def final_rows(
        self, writer: StoreWriter, facts: np.ndarray, screening: Screening
    ) -> np.ndarray:
        """Return particles.npy: the table's rows with their place, gain and flags."""
        rows = self.prepared.sampling.stored_rows(self.prepared.table)
        image = self.prepared.distinct.image_of_row
        rows["shard"], rows["slot"] = writer.shard[image], writer.slot[image]
        rows["image_gain"], rows["flags"] = facts["gain"][image], screening.flags[image]
        return rows

    def audit(self, store: ParticleStore) -> str:
        """Read a sample of rows back from the source; return the line that says so.

        Raises
        ------
        CorruptDataError : a row of the store is not its image; names row, stack and image.
        """
        prepared = self.prepared
        rows = audited_rows(len(prepared.table), prepared.settings.seed)
        image = prepared.distinct.image_of_row[rows]
        found = joined_audits(
            read_back(store, prepared.images, transform, rows[places])
            for transform, places in prepared.by_transform(image)
        )
        if found.bad_rows:
            raise CorruptDataError(
                f"{prepared.describe_row(found.bad_rows[0])} is not what was packed "
                f"({len(found.bad_rows)} of {found.images} images read back differ); the stack "
                f"changed meanwhile, or memory or disk is faulty: remove {store.path} "
                "and pack again"
            )
        return found.describe()

    def manifest(
        self,
        rows: np.ndarray,
        checksums: dict[str, str],
        account: RowAccount,
        command: str,
    ) -> Manifest:
        """Return the manifest of the finished store."""
        account = RowAccount(account.rows_in, len(rows), account.dropped)
        prepared, plan, statistics = self.prepared, self.plan, self.statistics
        settings, table, counts = prepared.settings, prepared.table, prepared.counts
        sampling = prepared.sampling
        done_before = prepared.images.domain == "hartley"
        window = (settings.window_r, WINDOW_OUTER) if settings.window and not done_before else None
        box = prepared.transform.box_px
        return Manifest(
            program=f"frazil {__version__}",
            command=command,
            box_px=box,
            pixel_size_ang=sampling.pixel_size_ang,
            processing=Processing(
                source_box_px=sampling.source_box_px,
                order=settings.window_order,
                window=window,
                sign=1 if settings.uninvert_data or done_before else -1,
                resampled=list(sampling.samplings) if sampling.resampled else [],
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
                rms=statistics.rms(counts),
                error_rms=statistics.error_rms(counts),
                clipped=statistics.clipped.tolist(),
            ),
            optics=[
                OpticsGroup(name, int(statistics.images[i]), statistics.rms(counts, i))
                for i, name in enumerate(prepared.group_names)
            ],
            groups=list(table.groups),
            blob_sign=table.blob_sign,
            has_pose=table.has_pose,
            has_shift=table.has_shift,
            has_ctf=table.has_ctf,
            rows_in=account.rows_in,
            dropped=dict(account.dropped),
            flagged={name: int((rows["flags"] & bit > 0).sum()) for name, bit in FLAGS.items()},
            origin=table.origin,
            sources=[source_file(path) for path in table.sources],
            fingerprint=plan.fingerprint,
            file_checksums=checksums,
        )


def open_or_pack(
    table: ParticleTable,
    out: Path,
    settings: PackSettings,
    command: str = "",
    monitor: PackMonitor | None = None,
) -> ParticleStore:
    """Return a store of the table's images, reusing the one at `out` when nothing changed.

    The metadata are always those of the table. A store of other images or settings at `out` is
    replaced.
    """
    if (out / MANIFEST_NAME).is_file():
        table = used_sources(table)
        store = ParticleStore.open(out)
        if store.manifest.fingerprint == image_fingerprint(table, settings):
            return store.with_rows(stored_rows(store, table))
        settings = msgspec.structs.replace(settings, overwrite=True)
    return pack(table, out, settings, command=command, monitor=monitor)


def stored_rows(store: ParticleStore, table: ParticleTable) -> np.ndarray:
    """Return the rows of a table as its store keeps them: of one pixel size when resampled."""
    rows = table.rows.copy()
    if store.manifest.processing.resampled:
        rows["pixel_size_ang"] = store.pixel_size_ang
    return rows


def _append_all(writer: StoreWriter, pending: list[Block]) -> int:
    """Append and forget the pending blocks; return their bytes."""
    if not pending:
        return 0
    records = np.concatenate([block.records for block in pending])
    writer.append(records, np.concatenate([block.facts for block in pending]))
    pending.clear()
    return records.nbytes
