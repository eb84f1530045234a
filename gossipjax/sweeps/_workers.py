"""Where the cells of a sweep are made: in this process, in worker processes, or by an executor."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from gossipjax._base.arguments import shown
from gossipjax.sweeps._cells import Cell, Function, make, note_failure

Engine: TypeAlias = Any
"""``"serial"``, ``"processes"``, a Dask client, or a :class:`concurrent.futures.Executor`."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NPROC": "1"}
"""XLA's CPU client reads NPROC, see :func:`gossipjax.configure`."""
NO_EIGEN_THREADS = "--xla_cpu_multi_thread_eigen=false"


def work(
    function: Function,
    cells: Sequence[Cell],
    lengths: Mapping[str, int],
    folder: pathlib.Path,
    engine: Engine,
    workers: int,
    retries: int,
    show: Callable[[int], None],
) -> None:
    """Make all cells, in any order; exceptions of cells, and deaths of their workers, are noted in the folder."""
    one = functools.partial(make, function, lengths=lengths, folder=folder)
    if isinstance(engine, str) and engine == "serial":
        for done, cell in enumerate(cells, 1):
            one(cell)
            show(done)
        return
    with _executor(engine, min(workers, len(cells)), retries) as executor:
        under_way = {executor.submit(one, cell): cell for cell in cells}
        try:
            for done, future in enumerate(concurrent.futures.as_completed(under_way), 1):
                if (error := future.exception()) is not None:
                    note_failure(under_way[future], folder, _of_worker(error))
                show(done)
        except BaseException:
            for future in under_way:
                future.cancel()
            raise


def check_engine(engine: Engine) -> None:
    """Check that an engine is one.

    Raises:
        TypeError: if it is not.
    """
    known = isinstance(engine, str) and engine in ("serial", "processes")
    if not known and not isinstance(engine, concurrent.futures.Executor) and not hasattr(engine, "get_executor"):
        raise TypeError(
            f'engine={shown(engine)}: must be "serial", "processes", a dask.distributed.Client or a '
            "concurrent.futures.Executor"
        )


@contextlib.contextmanager
def _executor(engine: Engine, workers: int, retries: int) -> Iterator[concurrent.futures.Executor]:
    if isinstance(engine, concurrent.futures.Executor):
        yield engine
        return
    with _local_client(workers, retries) if engine == "processes" else contextlib.nullcontext(engine) as client:
        yield client.get_executor(pure=False, retries=0)


@contextlib.contextmanager
def _local_client(workers: int, retries: int) -> Iterator[Any]:
    """Start worker processes of one thread each, which Dask replaces if they die."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ImportError('engine="processes" needs Dask: pip install "gossipjax[sweep]"') from error
    flags = f"{os.environ.get('XLA_FLAGS', '')} {NO_EIGEN_THREADS}".strip()
    settings = {
        "distributed.scheduler.allowed-failures": retries,
        "distributed.worker.memory.terminate": False,
        "distributed.worker.memory.pause": False,
        "distributed.nanny.pre-spawn-environ": ONE_THREAD | {"XLA_FLAGS": flags},
        "distributed.logging.distributed": "error",
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _of_worker(error: BaseException) -> str:
    """Say what ended a worker; the messages of executors speak of their own tasks."""
    if type(error).__name__ == "KilledWorker":
        return "its process died each time it was tried, most often for lack of memory"
    if type(error).__name__ in ("BrokenProcessPool", "TerminatedWorkerError"):
        return f"the executor lost a process and stopped before this cell was finished ({type(error).__name__})"
    return f"{type(error).__name__}: {error}"
