"""Threads that each compute whole tiles, instead of sharing every small operation.

A tile is a handful of operations of a fraction of a millisecond. Torch would split each of them
over all threads and wait for the slowest at every one; here each thread computes tiles of its own
with single-threaded operations. It takes half of the time, a busy machine does not multiply it,
and the bits do not depend on the number of threads.
"""

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818  (a signal, not an error)
    """Raised in a thread whose work is no longer wanted."""


_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = threading.Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process; a fork has none of its parent's."""
    key = (os.getpid(), threads)
    with _making:
        if key not in _pools:
            ready = threading.Barrier(threads + 1)

            def start() -> None:
                torch.get_num_threads()  # a thread's first question sets its number; ask now
                torch.set_num_threads(1)  # of this thread, but also of those that start later,
                ready.wait()

            pool = ThreadPoolExecutor(threads, "mercer", initializer=start)
            try:
                for _ in range(threads):
                    pool.submit(int)
                ready.wait()
            except BaseException:
                ready.abort()  # threads that wait would keep the process from ending
                raise
            torch.set_num_threads(threads)  # which is set back here
            _pools.clear()
            _pools[key] = pool
        return _pools[key]


def in_order(
    jobs: Iterable[int],
    work: Callable[[int, Callable[[], None]], T],
    device: torch.device,
) -> Generator[T, None, None]:
    """Run jobs in threads, and yield their results in the order of the jobs.

    Parameters
    ----------
    jobs : iterable of int
        Numbers of the jobs.
    work : callable
        ``work(job, check)`` computes one; it calls ``check()`` now and then, which raises where
        the caller was interrupted. It runs without gradients.
    device : torch.device
        Where the tensors are; only on a CPU are there threads.

    Yields
    ------
    object
        Results, of which at most twice as many as threads are waiting.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:  # also inside a thread of the pool
        for job in jobs:
            yield work(job, lambda: None)
        return
    pool, stop = _pool(threads), threading.Event()
    inference = torch.is_inference_mode_enabled()  # which threads do not inherit

    def check() -> None:
        if stop.is_set():
            raise Stopped

    def run(job: int) -> T:
        with torch.inference_mode(inference), torch.no_grad():
            check()
            return work(job, check)

    queue = iter(jobs)
    waiting: deque[Future[T]] = deque()
    try:
        for job in itertools.islice(queue, 2 * threads):
            waiting.append(pool.submit(run, job))
        while waiting:
            yield waiting.popleft().result()
            for job in itertools.islice(queue, 1):
                waiting.append(pool.submit(run, job))
    finally:  # an error, an interruption, or a caller that wants no more
        stop.set()
        for future in waiting:
            future.cancel()
        for future in waiting:
            if not future.cancelled():
                future.exception()
