"""Results come in order and few at a time; an error reaches the caller and leaves no thread."""

import threading
import time

import pytest
import torch

from frazil.preprocess.parallel import one_torch_thread, ordered_map


@pytest.mark.parametrize("threads", [1, 3])
def test_results_keep_the_order_of_the_items(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(ordered_map(work, range(20), threads)) == [i * i for i in range(20)]


def test_only_a_few_items_are_ahead_of_the_consumer() -> None:
    taken = 0

    def items():
        nonlocal taken
        while taken < 100:
            taken += 1
            yield taken

    results = ordered_map(lambda item: item, items(), 3)
    for seen in range(1, 11):
        assert next(results) == seen
        assert taken <= seen + 3
    results.close()


def test_an_error_arrives_and_no_thread_stays() -> None:
    def work(item: int) -> int:
        if item == 4:
            raise ValueError("item 4")
        return item

    found, before = [], threading.active_count()
    with pytest.raises(ValueError, match="item 4"):
        found.extend(ordered_map(work, range(50), 3))
    assert threading.active_count() == before
    assert list(ordered_map(work, range(4), 3)) == [0, 1, 2, 3]


def test_torch_gets_its_threads_back() -> None:
    torch.set_num_threads(2)
    with pytest.raises(KeyError), one_torch_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


def test_packing_in_the_background_leaves_the_threads_of_training_alone() -> None:
    torch.set_num_threads(2)
    inside: list[int] = []
    started, done = threading.Event(), threading.Event()

    def pack() -> None:
        with one_torch_thread():
            inside.append(torch.get_num_threads())
            list(ordered_map(lambda item: inside.append(torch.get_num_threads()), range(2), 2))
            started.set()
            done.wait()

    packing = threading.Thread(target=pack)
    packing.start()
    started.wait()
    found = torch.get_num_threads()
    done.set()
    packing.join()
    assert (found, torch.get_num_threads()) == (2, 2)
    assert inside == [1, 1, 1]
