"""The same rows from every kind of place that is not memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

NAMES = ("a", "b", "c")


def rows(n=2500, dtype=np.float64, seed=0):
    """Three overlapping clusters in three features."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 1.0], [0.0, 5.0, 2.0]])
    return (centres[rng.integers(3, size=n)] + rng.standard_normal((n, 3))).astype(dtype)


def npy(x, folder):
    np.save(folder / "rows.npy", x)
    return folder / "rows.npy"


def npy_fortran(x, folder):
    np.save(folder / "columns.npy", np.asfortranarray(x))
    return str(folder / "columns.npy")


def npy_swapped(x, folder):
    np.save(folder / "swapped.npy", x.astype(x.dtype.newbyteorder(">")))
    return folder / "swapped.npy"


def table(x):
    pa = pytest.importorskip("pyarrow")
    return pa.table({name: x[:, j] for j, name in enumerate(NAMES)})


def parquet(x, folder):
    whole, pq = table(x), pytest.importorskip("pyarrow.parquet")
    pq.write_table(whole, folder / "rows.parquet", row_group_size=321)
    return folder / "rows.parquet"


def parquet_folder(x, folder):
    pq = pytest.importorskip("pyarrow.parquet")
    inside = folder / "parts"
    (inside / "later").mkdir(parents=True)
    third = len(x) // 3
    pq.write_table(table(x[:third]), inside / "0.parquet")
    pq.write_table(table(x[third : third + 1]), inside / "1.parquet")
    pq.write_table(table(x[third + 1 :]), inside / "later" / "2.parquet", row_group_size=100)
    (inside / "_metadata.parquet").write_bytes(b"not one of the rows")
    return inside


def arrow_dataset(x, folder):
    dataset = pytest.importorskip("pyarrow.dataset")
    return dataset.dataset(parquet_folder(x, folder), exclude_invalid_files=True)


def function(x, folder):
    return lambda: (x[i : i + 333] for i in range(0, len(x), 333))


def ragged_function(x, folder):
    """Chunks of all sizes, some of them of no rows, in another memory order."""

    def chunks():
        edges = [0, 1, 1, 8, 1000, 1000, len(x)]
        for a, b in pairwise(edges):
            yield np.asfortranarray(x[a:b])

    return chunks


def loader(x, folder):
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(torch_dataset(x, folder), batch_size=77)


def torch_dataset(x, folder):
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(torch.tensor(x))


def zarr_array(x, folder):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(folder / "z", shape=x.shape, chunks=(401, 2), dtype=x.dtype)
    array[:] = x
    return array


PLACES = {
    place.__name__: place
    for place in (
        npy,
        npy_fortran,
        npy_swapped,
        parquet,
        parquet_folder,
        arrow_dataset,
        function,
        ragged_function,
        loader,
        torch_dataset,
        zarr_array,
    )
}
