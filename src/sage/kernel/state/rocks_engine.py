"""`RocksEngine`: all that SAGE asks of RocksDB. Bytes to bytes, ordered, batches, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sage.common.errors import ConfigError
from sage.kernel.state.errors import DiskStateError

_MIB: Final = 1 << 20


def import_rocksdict() -> Any:
    """Import the binding of RocksDB.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import rocksdict  # noqa: PLC0415 - an extra, and 11 MB: only for those who use it
    except ImportError as error:
        raise ConfigError(
            "state on the disk needs RocksDB: install sage-dataflow[state]"
            " (`pip install 'sage-dataflow[state]'`)"
        ) from error
    return rocksdict


@contextmanager
def _told(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the binding raises bare `Exception`
        raise DiskStateError(f"cannot {doing} the state in {path}: {error}") from error


class RocksEngine:
    """A database in a directory.

    It keeps no write-ahead log: after a crash it opens with a state that it had some time ago, of
    all keys at the same moment. What must not be lost is in a checkpoint.

    Args:
        path: The directory of the database; made if it is not there.
        memory: Bytes of memory for blocks that were read and for what is not written yet.

    Raises:
        ConfigError: RocksDB is not installed.
        DiskStateError: the database cannot be opened.
    """

    def __init__(self, path: Path, memory: int) -> None:
        self._path = path
        self._lib = import_rocksdict()
        with _told("open", path):
            self._db = self._lib.Rdict(str(path), _options(self._lib, memory))
        self._unlogged = self._lib.WriteOptions()
        self._unlogged.disable_wal = True

    def get(self, name: bytes) -> bytes | None:
        """Give the bytes of a key, or `None`."""
        try:  # not `_told`: a generator costs as much as the lookup
            found: bytes | None = self._db.get(name)
        except Exception as error:
            raise DiskStateError(f"cannot read the state in {self._path}: {error}") from error
        return found

    def get_many(self, names: list[bytes]) -> list[bytes | None]:
        """Give the bytes of several keys."""
        with _told("read", self._path):
            return self._db.get(names) if names else []

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Write all of these or none; `None` deletes."""
        batch = self._lib.WriteBatch(raw_mode=True)
        for name, data in changes.items():
            if data is None:
                batch.delete(name)
            else:
                batch.put(name, data)
        with _told("write", self._path):
            self._db.write(batch, self._unlogged)

    def delete_prefix(self, prefix: bytes, also: Mapping[bytes, bytes]) -> None:
        """Delete all keys that begin so, and write these, together."""
        batch = self._lib.WriteBatch(raw_mode=True)
        end = (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
        batch.delete_range(prefix, end)
        for name, data in also.items():
            batch.put(name, data)
        with _told("write", self._path):
            self._db.write(batch, self._unlogged)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Give all entries whose key begins so, as they are now, in the order of their bytes.

        Args:
            prefix: How their keys begin.
            start: Those are left out whose key goes on with less than this.
        """
        with _told("read", self._path):
            found = self._db.items(from_key=prefix + start)
        for name, data in found:
            if not name.startswith(prefix):
                return
            yield name, data

    def checkpoint(self, into: Path) -> None:
        """Make a database of what is here now: hard links to the files, where they can be had."""
        with _told("write", self._path):
            self._db.flush()
        with _told(f"take a snapshot into {into} of", self._path):
            self._lib.Checkpoint(self._db).create_checkpoint(str(into))

    def close(self) -> None:
        """Write what is in memory and close."""
        with _told("close", self._path):
            self._db.close()


def _options(lib: Any, memory: int) -> Any:
    blocks = lib.BlockBasedOptions()
    blocks.set_block_cache(lib.Cache(memory // 2))
    blocks.set_bloom_filter(10, False)  # a new key is known as new without a read
    # Indexes and filters count as memory, too. In pieces: the cache is 64 parts, and a filter for all
    # keys of a file would not fit into one of them, so that each lookup would read it again.
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_index_type(lib.BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_metadata_block_size(4096)
    options = lib.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(max(memory // 6, _MIB))
    options.set_max_write_buffer_number(3)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_block_based_table_factory(blocks)
    return options
