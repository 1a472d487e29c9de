"""Jobs side by side: order, threads, errors, what a thread inherits."""

import threading

import numpy as np
import pytest
import torch

from geoframe._threads import together


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_the_number_of_threads_comes_back(threads):
    assert together(lambda: 3, lambda: "a", lambda: None) == [3, "a", None]
    assert torch.get_num_threads() == threads
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))  # a new thread inherits it
    thread.start(), thread.join()
    assert seen == [threads]


def test_jobs_share_the_threads_and_run_at_once(threads):
    if threads == 1:
        assert together(torch.get_num_threads, torch.get_num_threads) == [1, 1]
        return
    meet = threading.Barrier(2, timeout=10)  # passed only by two that run at the same time
    assert together(*[lambda: (meet.wait(), torch.get_num_threads())[1]] * 2) == [threads // 2] * 2


def test_jobs_inside_of_jobs(threads):
    inner = together(*[lambda: together(*[threading.get_ident] * 2)] * 2)
    assert all(len(idents) == 2 for idents in inner)
    if threads == 2:  # one thread each: nothing is left to share
        assert all(len(set(idents)) == 1 for idents in inner)


def test_a_thread_inherits_modes(threads):
    with torch.no_grad(), np.errstate(divide="ignore"):
        found = together(*[lambda: (torch.is_grad_enabled(), np.geterr()["divide"])] * 2)
    assert found == [(False, "ignore")] * 2
    assert together(*[torch.is_grad_enabled] * 2) == [True, True]


def test_the_first_error_is_raised_when_all_have_ended(threads):
    done = []

    def fails() -> None:
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        together(fails, lambda: done.append(1))
    assert torch.get_num_threads() == threads
    assert done == ([1] if threads > 1 else [])


def test_each_job_is_done_once_by_this_thread_or_another(threads):
    from geoframe._compiled import share

    done, idents = [], set()

    def job(i: int, j: int) -> None:
        done.append((i, j))
        idents.add(threading.get_ident())
        if (i, j) == (7, 49):
            raise ValueError("seven")

    jobs = [(i, i * i) for i in range(40)]
    share(job, jobs[:7])
    assert sorted(done) == jobs[:7] and len(idents) <= threads
    with pytest.raises(ValueError, match="seven"):
        share(job, jobs)


def test_shared_loops_end_with_the_first_failure(threads):
    from geoframe._compiled import share

    begun = []

    def run(i: int) -> None:
        begun.append(i)
        raise ValueError(f"job {i}")

    with pytest.raises(ValueError, match="job"):
        share(run, [(i,) for i in range(50)])
    assert len(begun) <= threads
