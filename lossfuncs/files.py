"""Rows of arrays and of .npy, .npz, .csv and .parquet files, some at a time, in memory that does not grow with the data.

A file's rows are read into one buffer, over and over; a memory map's pages are let go again after each read, for resident pages of a
map count as this process's memory. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import mmap
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from .call import array, is_float
from .problem import Array

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")
_SPECIFICATION = re.compile(r"(.+\.(?:npz|csv|parquet)):(.+)", re.IGNORECASE)


class Source:
    """Rows, read from front to back. `rows` of `shape` each; `name` is what messages call them."""

    name: str
    rows: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, rows: int) -> Array:
        """The next rows: that many, or those that are left. They are good until the next read."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""

    @property
    def row_bytes(self) -> int:
        return max(1, math.prod(self.shape) * self.dtype.itemsize)


def open_rows(data: Any, name: str, columns: Sequence[str] | None = None) -> Source:
    """The rows of an array, or of the file that a path names.

    A path may end in ":column", a key of an .npz file or columns, with commas between them, of a .csv or .parquet file; `columns`
    says the same. OSError for a file that cannot be opened; ValueError for one that holds something else than rows of numbers;
    ImportError for .parquet without pyarrow.
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, (str, os.PathLike)):
        return _Array(name, data)
    path, chosen = split_columns(os.fspath(data))
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in one of {', '.join(SUFFIXES)}, to say what it holds")
    columns = chosen if columns is None else columns
    _check_regular(path)
    if os.path.isfile(path) and not os.path.getsize(path):
        raise ValueError(f"{path} is empty")
    if suffix == ".npy":
        return _open_npy(path)
    if suffix == ".npz":
        return _open_npz(path, columns)
    return (_Csv if suffix == ".csv" else _Parquet)(path, columns)


def split_columns(specification: str) -> tuple[str, list[str] | None]:
    """The path and the columns of "file.csv:column,column"; None where it names none."""
    found = _SPECIFICATION.fullmatch(specification)
    if not found or os.path.exists(specification):
        return specification, None
    return found[1], next(csv.reader([found[2]]))


def column_names(path: str) -> list[str]:
    """The columns of a .csv or .parquet file, the keys of an .npz file."""
    _check_regular(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        with _archive(path) as archive:
            return _keys(archive)
    if suffix == ".csv":
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            return _Header(path, next((line for line in file if line.strip()), "")).columns
    if suffix == ".parquet":
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    raise ValueError(f"{path} has no columns to choose from: that takes .csv, .parquet or .npz")


def _check_regular(path: str) -> None:
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError(f"{path} is a pipe or a device, and its rows are counted before they are read: write them to a file")


class _Array(Source):
    """An array, or anything that slices like one: an HDF5 data set, a tensor, a memory map."""

    def __init__(self, name: str, data: Any) -> None:
        sliceable = hasattr(data, "shape") and hasattr(data, "dtype") and not hasattr(data, "iloc")
        self._data = data if sliceable else array(name, data)
        if len(self._data.shape) == 0:
            raise ValueError(f"{name} must have rows, got a single number")
        self.name = name
        self.rows, *shape = map(int, self._data.shape)
        self.shape = tuple(shape)
        self.dtype = array(name, self._data[:0]).dtype
        self._at = 0

    def read(self, rows: int) -> Array:
        self._let_go()
        rows = min(rows, self.rows - self._at)
        self._at += rows
        return array(self.name, self._data[self._at - rows : self._at])

    def close(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        pages, mode = (getattr(self._data, name, None) for name in ("_mmap", "mode"))
        # of a copy-on-write map, mode "c", this would undo what was written
        if isinstance(pages, mmap.mmap) and mode in ("r", "r+", "w+") and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def _open_npy(path: str) -> Source:
    stream = open(path, "rb", buffering=0)
    try:
        return _Npy(path, stream, os.path.getsize(path))
    except _ColumnByColumn:
        stream.close()
        return _Array(path, np.load(path, mmap_mode="r"))
    except BaseException:
        stream.close()
        raise


def _open_npz(path: str, columns: Sequence[str] | None) -> Source:
    archive = _archive(path)
    try:
        keys = _keys(archive)
        key = columns[0] if columns else keys[0] if len(keys) == 1 else None
        if key not in keys or columns and len(columns) > 1:
            wanted = "say which, as in" if key is None else f"there is no {','.join(columns or ())!r}; ask for one, as in"
            raise ValueError(f"{path} holds {', '.join(keys) or 'no arrays'}: {wanted} {path}:{keys[0] if keys else 'key'}")
        name = f"{path}:{key}"
        try:
            return _Npy(name, _member(archive, key), archive.getinfo(f"{key}.npy").file_size, archive)
        except _ColumnByColumn:
            with archive, _member(archive, key) as stream:
                return _Array(name, npy.read_array(stream, allow_pickle=False))
    except BaseException:
        archive.close()
        raise


def _archive(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ValueError(f"{path} is not a whole .npz file") from None


def _member(archive: zipfile.ZipFile, key: str) -> Any:
    return archive.open(f"{key}.npy")


def _keys(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


class _ColumnByColumn(Exception):
    """The array is stored in Fortran's order: its rows are all over the file."""


class _Npy(Source):
    """The .npy format, from a file or from inside an .npz."""

    def __init__(self, name: str, stream: BinaryIO, size: int, archive: zipfile.ZipFile | None = None) -> None:
        self.name, self._stream, self._archive = name, stream, archive
        try:
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
            shape, by_columns, self.dtype = header(stream)
            if min(shape, default=0) < 0:
                raise ValueError
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            raise ValueError(f"{name} is not a .npy file: its header cannot be read") from None
        if self.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which are not read because that can run any code; store numbers")
        if not is_float(self.dtype) and self.dtype.kind not in "biu":
            raise ValueError(f"{name} must hold real numbers, got dtype {self.dtype}")
        if not shape:
            raise ValueError(f"{name} must have rows, got a single number")
        self.rows, self.shape = shape[0], tuple(shape[1:])
        there, wanted = size - stream.tell(), math.prod(shape) * self.dtype.itemsize
        if there < wanted:
            raise ValueError(f"{name} is cut off: {there:,} bytes of {wanted:,} are there")
        if by_columns and sum(n > 1 for n in shape) > 1:
            raise _ColumnByColumn
        self._buffer: Array = np.empty((0, *self.shape), self.dtype)
        self._left = self.rows

    def read(self, rows: int) -> Array:
        rows = min(rows, self._left)
        if rows > len(self._buffer):
            self._buffer = np.empty((rows, *self.shape), self.dtype)
        block = self._buffer[:rows]
        into = block.reshape(-1).view(np.uint8).data
        while into:
            try:
                count = self._stream.readinto(into)  # type: ignore[attr-defined]
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ValueError(f"{self.name} is damaged: {error}") from None
            if not count:
                raise ValueError(f"{self.name} ended while it was read: {self.rows:,} rows were announced")
            into = into[count:]
        self._left -= rows
        return block

    def close(self) -> None:
        self._stream.close()
        if self._archive:
            self._archive.close()


class _Header:
    """What the first line of a .csv file tells: what stands between its fields, and whether they are names.

    They are if one of them is no number and none is a fraction, or if they are 0, 1, 2, ... as pandas writes them; a first column
    without a name is pandas' index, and not data.
    """

    def __init__(self, path: str, line: str) -> None:
        if not line:
            raise ValueError(f"{path} is empty")
        self.delimiter = max(",;\t", key=line.count)
        fields = [field.strip() for field in next(csv.reader([line], delimiter=self.delimiter))]
        self.names = _are_names(fields)
        self.columns = fields if self.names else [str(i) for i in range(len(fields))]
        self.data = range(1 if self.names and len(fields) > 1 and not fields[0] else 0, len(fields))


class _Csv(Source):
    """Numbers with commas, semicolons or tabs between them, with or without a line of names."""

    dtype = np.dtype(np.float64)

    def __init__(self, path: str, columns: Sequence[str] | None) -> None:
        self.name = path
        self._file = open(path, encoding="utf-8-sig", errors="replace", newline="")  # what is no text is no number
        try:
            self._lines: Iterator[tuple[int, str]] = ((number, line) for number, line in enumerate(self._file, 1) if line.strip())
            first = next(self._lines, (0, ""))
            header = _Header(path, first[1])
            if not header.names:
                self._lines = itertools.chain([first], self._lines)
            self._delimiter, self._columns = header.delimiter, header.columns
            self._chosen = list(header.data) if columns is None else [_position(path, header.columns, column) for column in columns]
            self.shape = (len(self._chosen),) if len(self._chosen) > 1 else ()
            with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
                self.rows = sum(1 for line in file if line.strip()) - header.names
        except BaseException:
            self._file.close()
            raise

    def read(self, rows: int) -> Array:
        chunk = list(itertools.islice(self._lines, rows))
        if not chunk:
            return np.empty((0, *self.shape))
        lines = [line for _, line in chunk]
        # loadtxt overlooks columns past those it is to use; there may also be text in quotes with commas in it
        uneven = sum(line.count(self._delimiter) for line in lines) != len(lines) * (len(self._columns) - 1)
        if uneven and (fault := self._fault(chunk)):
            raise fault
        try:
            block: Array = np.loadtxt(lines, delimiter=self._delimiter, comments=None, quotechar='"', ndmin=2, usecols=self._chosen)
        except ValueError as error:
            raise self._fault(chunk) or ValueError(f"{self.name} cannot be read: {error}") from None
        if np.max(np.abs(block), initial=0.0) >= 2.0**53:  # of whole numbers that large, as of records, a float64 loses the last digits
            with contextlib.suppress(ValueError, OverflowError):
                fields = csv.reader(lines, delimiter=self._delimiter)
                block = np.array([[int(row[i]) for i in self._chosen] for row in fields], np.int64)
        return block if self.shape else block[:, 0]

    def close(self) -> None:
        self._file.close()

    def _fault(self, chunk: list[tuple[int, str]]) -> ValueError | None:
        for number, line in chunk:
            fields = next(csv.reader([line], delimiter=self._delimiter))
            if len(fields) != len(self._columns):
                return ValueError(f"{self.name}, line {number}: {len(fields)} columns, but the first line has {len(self._columns)}")
            for i in self._chosen:
                if not _is_number(fields[i]):
                    what = f"{fields[i].strip()!r} is not a number" if fields[i].strip() else "there is no number"
                    return ValueError(f"{self.name}, line {number}, column {self._columns[i]}: {what}")
        return None


def _are_names(fields: list[str]) -> bool:
    counted = [str(i) for i in range(len(fields))]
    if len(fields) > 2 and (fields == counted or not fields[0] and fields[1:] == counted[:-1]):
        return True
    numbers = [field for field in fields if _is_number(field)]
    return len(numbers) < sum(map(bool, fields)) and all(number.isdecimal() for number in numbers)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field


def _position(path: str, names: list[str], column: str) -> int:
    """Of a column, given by its name or else by its number, counted from 0."""
    column = column.strip()
    if names.count(column) > 1:
        raise ValueError(f"{path} has {names.count(column)} columns {column!r}: give them names of their own")
    if column in names:
        return names.index(column)
    if column.isdecimal() and int(column) < len(names):
        return int(column)
    shown = ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")
    raise ValueError(f"{path} has no column {column!r}; it has {shown}")


def _parquet(path: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"{path}: to read .parquet, pyarrow is needed: pip install 'lossfuncs[parquet]'") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid:
        raise ValueError(f"{path} is not a whole .parquet file") from None


class _Parquet(Source):
    """Columns of numbers, or of lists of equally many numbers."""

    def __init__(self, path: str, columns: Sequence[str] | None) -> None:
        self.name, self._file = path, _parquet(path)
        try:
            names = list(self._file.schema_arrow.names)
            chosen = [names[_position(path, names, column)] for column in (names if columns is None else columns)]
            if not chosen:
                raise ValueError(f"{path} has no columns")
            self.rows = self._file.metadata.num_rows
            self._blocks = self._converted(chosen)
            self._rest = next(self._blocks, np.empty((0, len(chosen))))
        except BaseException:
            self._file.close()
            raise
        self.shape, self.dtype = self._rest.shape[1:], self._rest.dtype

    def read(self, rows: int) -> Array:
        blocks = [self._rest]
        while sum(map(len, blocks)) < rows and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        self._rest = whole[rows:]
        return whole[:rows]

    def close(self) -> None:
        self._file.close()

    def _converted(self, chosen: list[str]) -> Iterator[Array]:
        for batch in self._file.iter_batches(batch_size=1 << 16, columns=chosen):
            columns = [self._numbers(name, batch.column(batch.schema.get_field_index(name))) for name in chosen]
            if len(columns) == 1:
                yield columns[0]
            elif any(column.ndim > 1 for column in columns):
                raise ValueError(f"{self.name}: of columns {', '.join(chosen)} one holds lists; ask for that one alone")
            else:
                yield np.stack(columns, axis=1)

    def _numbers(self, name: str, column: Any) -> Array:
        import pyarrow

        kind, where = column.type, f"{self.name}, column {name}"
        if column.null_count:
            raise ValueError(f"{where}: values are missing")
        if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
            inner = self._numbers(name, column.flatten())
            lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
            if len(lengths) > 1:
                raise ValueError(f"{where}: its lists have {lengths[0]} to {lengths[-1]} numbers; equally many are wanted")
            return inner.reshape(len(column), -1, *inner.shape[1:]) if len(column) else inner
        if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
            raise ValueError(f"{where}: it holds {kind}, not numbers")
        numbers: Array = column.to_numpy(zero_copy_only=False)
        return numbers
