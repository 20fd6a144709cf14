"""Read a store from end to end and check every block against its checksum.

Exit code 0: every byte is what was packed. Exit code 2: the first damaged file is named, with its
shard and rows.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of verify."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store, NAME.frz")


def run(args: argparse.Namespace) -> None:
    """Check the store."""
    from frazil.preprocess.parallel import progress
    from frazil.store.reader import ParticleStore

    store = ParticleStore.open(args.store)
    shards = len(store.manifest.shard_rows)
    for _ in progress(store.verify(), "verifying", "shard", shards):
        pass
    print(
        f"{args.store}: {store.manifest.images} images in {shards} shards are as they were packed"
    )
