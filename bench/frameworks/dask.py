"""Loss and accuracy of 4,000,000 x 10 on two workers, by `evaluate` and as one writes it in dask.array."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import OURS, Workload

ROWS, CLASSES, CHUNK = 4_000_000, 10, 250_000


def workloads() -> Iterator[Workload]:
    import dask.array as da
    from distributed import Client, LocalCluster

    import lossfuncs

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        p = da.random.default_rng(0).uniform(0.1, 1.0, (ROWS, CLASSES), chunks=(CHUNK, CLASSES)).astype(np.float32)
        p = p / p.sum(axis=1, keepdims=True)
        y = da.random.default_rng(1).integers(0, CLASSES, ROWS, chunks=CHUNK)
        p, y = client.persist([p, y])  # the data lie with the workers
        one_hot = (y[:, None] == da.arange(CLASSES)).astype(np.float32)

        def expression() -> tuple[float, float]:
            loss = -(one_hot * da.log(da.clip(p, 1e-7, 1 - 1e-7))).sum(axis=1).mean()
            return da.compute(loss, (p.argmax(axis=1) == y).mean())  # type: ignore[no-any-return]

        def ours() -> tuple[float, ...]:
            return tuple(lossfuncs.evaluate(y, p, loss="crossentropy", metrics="accuracy").values())

        def expected() -> tuple[float, float]:
            local, labels = p.compute().astype(np.float64), y.compute()
            return -np.mean(np.log(local[np.arange(ROWS), labels])), np.mean(local.argmax(axis=1) == labels)

        yield Workload(
            f"crossentropy and accuracy, {ROWS:,}x{CLASSES}, 2 workers", {OURS: ours, "dask.array": expression}, expected,
            target={"dask.array": 2.0},
        )  # fmt: skip
