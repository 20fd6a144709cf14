"""The counted work of an image is that of a count by hand, and of the operations that are run."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from frazil.engines.pca.device_pass import DeviceWorker
from frazil.engines.pca.streaming import Share
from frazil.engines.pca.work import Work, expectation_work, maximisation_work, sent_bytes
from frazil.geometry.packing import half_disc
from tests.engines.pca_case import make_case


def test_the_counts_of_a_tiny_box_are_those_by_hand():
    # Half of the twelve frequencies with 0 < |k| <= 2.
    count = len(half_disc(4))
    assert count == 6
    # The mean alone. Eight rows of 2 numbers: 16 multiply-adds. Gram matrix: 2 rows, 2 x 2 numbers.
    # Bytes: 16 numbers of the rows; 8 indices of 8 and weights of 4 bytes, twice; 2 numbers of the
    # slice, twice; 4 of the design, twice.
    assert expectation_work(1, count) == Work(6 * (32 + 16), 6 * (64 + 192 + 16 + 32))
    # Three numbers per voxel: 1 weight, 2 right-hand sides. Products: 2 rows, 2 x 2 numbers, and 4
    # for the residual; 3 factors; 8 x 3 multiply-adds.
    # Bytes: 4 numbers six times; 2 read and 3 written; 8 times 5 x 3.
    assert maximisation_work(1, count) == Work(6 * (16 + 8 + 3 + 48), 6 * (96 + 4 * 5 + 4 * 8 * 15))
    # Codes; scale, rotation, shift and CTF.
    assert sent_bytes(count) == 12 + 4 + 36 + 8 + 32
    assert sent_bytes(count, 2) - sent_bytes(count) == 12


def test_the_matrix_products_are_those_that_are_run():
    case = make_case(5, 12, 2)
    worker = DeviceWorker(Share(case.fit([case.grids]), 0, True, None), torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        worker.work(case.everything, torch.arange(5))
    per_coefficient = 2 * 2 * 4**2
    wide = [
        flops for name, flops in counter.get_flop_counts()["Global"].items() if "bmm" in str(name)
    ]
    # Gram matrix and right-hand sides; the posterior's own products are small.
    wanted = 2 * 5 * len(case.geometry.disc) * per_coefficient
    assert wanted <= sum(wide) < 1.02 * wanted


def test_the_table_of_the_docs_is_what_is_counted():
    text = (Path(__file__).parents[2] / "docs" / "pca.md").read_text(encoding="utf-8")
    for box_px in (64, 128, 256):
        count = len(half_disc(box_px))
        cells = [f"{box_px} px", f"{sent_bytes(count) / 1e3:.1f} kB"]
        for work in (expectation_work(9, count), maximisation_work(9, count)):
            cells.append(f"{work.operations / 1e6:.1f} million")
            cells.append(f"{work.moved_bytes / 1e6:.1f} MB")
        assert f"| {' | '.join(cells)} |" in text
