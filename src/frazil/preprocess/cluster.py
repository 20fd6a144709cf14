"""Packing by the processes of a Dask cluster, on this machine or on many.

Owns: the connection, which tasks are given out, and what becomes of their errors. Does not own: the
tasks (`part_job`), the start of workers on other machines (Dask's own tools), the commit
(`pipeline`).

Dask gives the task of a worker that is lost to another one. All data go through the folder of the
store, which every worker must see; only numbers travel between processes.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import msgspec
import numpy as np

from frazil.errors import InputError, WorkerLostError
from frazil.preprocess import part_job
from frazil.preprocess.monitor import PackMonitor
from frazil.preprocess.part_job import JobAddress
from frazil.preprocess.prepared import CodeScale, PreparedImages
from frazil.preprocess.statistics import ShellStatistics
from frazil.store.parts import Parts
from frazil.store.writer import SHARDS_FOLDER, StoreWriter

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
CONNECT_S = 30


@contextmanager
def connected(address: str | None, processes: int) -> Iterator["DaskWorkers | None"]:
    """Yield the workers of a cluster; None without an address.

    Parameters
    ----------
    address : of a scheduler, "tcp://HOST:PORT", or "local": processes of this machine.
    processes : how many of those.

    Raises
    ------
    InputError : Dask is not installed, or nobody answers at the address.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(
            f"--dask {address}: Dask is not installed; pip install distributed"
        ) from error
    if address != LOCAL:
        try:
            client = Client(address, timeout=CONNECT_S)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise InputError(
                f"--dask {address}: no scheduler answers there ({error or 'timeout'}); start one "
                "with `dask scheduler`, or give local"
            ) from error
        with client:
            yield DaskWorkers(client)
        return
    # Lost workers are restarted, and said by us if they cannot be.
    for name in ("distributed.nanny", "distributed.scheduler", "distributed.worker"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with (
        LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield DaskWorkers(client)


@final
class DaskWorkers:
    """The workers of a cluster, as those that encode and seal a store."""

    def __init__(self, client: "Client") -> None:
        self.client = client

    def encode(
        self,
        writer: StoreWriter,
        prepared: PreparedImages,
        scale: CodeScale,
        monitor: PackMonitor,
    ) -> tuple[np.ndarray, ShellStatistics]:
        """Return facts and statistics of all images, after all parts were written.

        Raises
        ------
        WorkerLostError : the workers of a part ended again and again.
        FrazilError, OSError : what a worker ran into.
        """
        parts = part_job.write_job(writer.folder, prepared, scale, writer.plan)
        missing = [number for number in range(parts.count) if not parts.is_done(number)]
        sizes = [parts.images(number) for number in missing]
        done = writer.plan.images - sum(size.stop - size.start for size in sizes)
        image_bytes = prepared.images.bytes_of([0])
        with monitor.images(writer.plan.images, "packing", image_bytes, done) as advance:
            for _, images in self._results(part_job.encode_part, writer, missing):
                advance(images)
        if missing:  # shards are made of all parts: those that are there already are another plan's
            shutil.rmtree(writer.folder / SHARDS_FOLDER, ignore_errors=True)
        return parts.facts(), _summed(parts, prepared)

    def seal(self, writer: StoreWriter, monitor: PackMonitor) -> list[np.ndarray]:
        """Return the checksums of all shards, after they were written; errors as of `encode`."""
        shards = range(len(writer.plan.shard_rows))
        found = self._results(part_job.seal_shard, writer, list(shards))
        sums: dict[int, np.ndarray] = {}
        for _ in monitor.items(shards, "sealing", "shard"):
            shard, checksums = next(found)
            sums[shard] = checksums
        return [sums[shard] for shard in shards]

    def _results(
        self, work: Callable[[JobAddress, int], Any], writer: StoreWriter, numbers: list[int]
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, result) of a task for each number, in the order in which they end."""
        from distributed import KilledWorker, as_completed

        address = JobAddress.of(writer.folder, writer.plan)
        # Not pure: the same task of an earlier call may have been of files that are gone.
        futures = self.client.map(lambda number: work(address, number), numbers, pure=False)
        numbered = dict(zip(futures, numbers, strict=True))
        try:
            for future in as_completed(futures):
                yield numbered[future], future.result()
        except KilledWorker as error:
            raise WorkerLostError(
                f"{writer.folder}: a task was given out again and again and its workers ended (too "
                "little memory?); what is done is kept, run the same command to go on"
            ) from error
        finally:
            self.client.cancel(futures)


def _summed(parts: Parts, prepared: PreparedImages) -> ShellStatistics:
    """Return the sum over all blocks, in writing order: the same to the bit as in one process."""
    total = ShellStatistics.zeros(len(prepared.group_names), len(prepared.counts))
    for number in range(parts.count):
        for block in msgspec.json.decode(parts.statistics(number)):
            total.add(ShellStatistics.from_json(block))
    return total
