"""gzip and zstd: the bytes of compressed files on their way in and out.

What is compressed how is settled here, by the names of files or by settings. A file may have several
compressed parts, one behind the other, as `cat a.gz b.gz` makes them.
"""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from typing import BinaryIO, Final, Literal, Protocol, TypeAlias, cast, get_args

from sage.common.errors import SourceError
from sage.common.suggest import did_you_mean

Codec: TypeAlias = Literal["gzip", "zstd"]
Compression: TypeAlias = Literal["infer", "gzip", "zstd", "none"]

SUFFIXES: Final[dict[Codec, str]] = {"gzip": ".gz", "zstd": ".zst"}

_ENDINGS: Final[dict[Codec, tuple[str, ...]]] = {"gzip": (".gz",), "zstd": (".zst", ".zstd")}

READ_FAULTS: Final = (OSError, EOFError, zlib.error)
"""What reading from `open_binary` raises when the file is damaged."""

_GZIP_LEVEL: Final = 6  # as the program does; 9, the default here, takes thrice as long
_FED: Final = 1 << 13  # what is fed at once bounds what comes out at once


class ByteStream(Protocol):
    """What readers of lines need of a file, compressed or not."""

    def read1(self, size: int, /) -> bytes:
        """Return what is there, at most `size` bytes; none at the end."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go to a place, counted in bytes that are not compressed."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Compressor(Protocol):
    """What compressed bytes are written through; closing it leaves the file below open."""

    def write(self, data: bytes, /) -> int:
        """Take bytes that are not compressed."""
        ...

    def close(self) -> None:
        """Write the end of the compressed part."""
        ...


def check_compression(compression: str) -> Compression:
    """Return `compression` if files can be read that way.

    Raises:
        SourceError: it is unknown, or needs a package that is not installed.
    """
    known = get_args(Compression)
    if compression not in known:
        raise SourceError(
            f"no compression {compression!r}; {', '.join(known)} are known."
            f"{did_you_mean(str(compression), known)}"
        )
    if compression == "zstd":
        check_zstd(SourceError)
    return cast("Compression", compression)


def check_zstd(error: type[Exception]) -> None:
    """Raise `error` unless there is a package for zstd."""
    if find_spec("zstandard") is None:
        raise error("zstd needs the package zstandard; pip install 'sage-dataflow[zstd]'")


def codec_of(path: str, compression: Compression) -> Codec | None:
    """Return what a file is compressed with, `None` for nothing.

    Examples:
        >>> codec_of("a.csv.zst", "infer"), codec_of("a.csv", "infer"), codec_of("a", "gzip")
        ('zstd', None, 'gzip')
    """
    if compression == "infer":
        return next((codec for codec, ends in _ENDINGS.items() if path.endswith(ends)), None)
    return None if compression == "none" else compression


def open_binary(path: str, compression: Compression) -> ByteStream:
    """Open a file for reading and decompress it on the way.

    Raises:
        SourceError: it cannot be opened, or there is no package for its compression.
    """
    codec = codec_of(path, compression)
    if codec == "zstd":
        check_zstd(SourceError)
    try:
        if codec == "gzip":
            return cast("ByteStream", gzip.open(path, "rb"))
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    return cast("ByteStream", file if codec is None else _ZstdFile(file))


class _ZstdFile:
    """Reads a zstd file; unlike `zstandard.open` it tells when the file ends too early."""

    def __init__(self, raw: BinaryIO) -> None:
        from zstandard import ZstdDecompressor, ZstdError  # an extra  # noqa: PLC0415

        self._raw = raw
        self._decompressor = ZstdDecompressor()
        self._error = ZstdError
        self._frame = self._decompressor.decompressobj()
        self._in_frame = False
        self._input = b""
        self._ready = memoryview(b"")

    def read1(self, size: int, /) -> bytes:
        """Return what is there.

        Raises:
            EOFError: the file ends within a frame.
            OSError: the file cannot be read, or is damaged.
        """
        while not self._ready:
            if not self._fill():
                return b""
        out = bytes(self._ready[:size])
        self._ready = self._ready[size:]
        return out

    def _fill(self) -> bool:
        data = self._input or self._raw.read(_FED)
        if not data:
            if self._in_frame:
                raise EOFError
            return False
        try:
            self._ready = memoryview(self._frame.decompress(data))
        except self._error as error:
            raise OSError(str(error)) from error
        self._in_frame = not self._frame.eof
        self._input = b"" if self._in_frame else self._frame.unused_data
        if not self._in_frame:
            self._frame = self._decompressor.decompressobj()
        return True

    def seek(self, offset: int, /) -> int:
        """Go forward from the start of the file, by reading; behind its end is its end."""
        left = offset
        while left and (out := self.read1(min(left, 1 << 20))):
            left -= len(out)
        return offset - left

    def close(self) -> None:
        self._raw.close()


def open_compressor(raw: BinaryIO, codec: Codec) -> Compressor:
    """Return what compresses into `raw`; the same bytes in make the same bytes out."""
    if codec == "gzip":  # without time and name
        return cast("Compressor", gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0))
    from zstandard import ZstdCompressor  # an extra  # noqa: PLC0415

    stream = ZstdCompressor(write_checksum=True).stream_writer(raw, closefd=False)
    return cast("Compressor", stream)
