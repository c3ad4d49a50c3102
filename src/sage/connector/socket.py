"""`SocketTextSource`: lines of text from a TCP server.

It is a live source: connecting and receiving happen on the thread that `function_source` runs.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from sage.common.errors import SourceError
from sage.connector.function_source import Feed, FunctionSource
from sage.connector.text_lines import check_encoding
from sage.dataflow.function.context import SourceContext
from sage.dataflow.function.source import Source, SourceReader

_CHUNK: Final = 1 << 16
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0


class SocketTextSource(Source[str]):
    r"""Connects to a TCP server and reads what it sends, line by line, until it closes.

    A record is the text between two delimiters; with the delimiter `"\n"`, a `"\r"` at the end is
    cut off. What follows the last delimiter is a record too. Try it against `nc -lk 9999`.

    Not replayable: what was sent is gone. A restarted job connects anew and goes on with what comes
    then; for records that must not be lost, read from a log such as Kafka, or from files.

    Args:
        host: The server's name or address.
        port: The server's port.
        delimiter: What ends a line.
        encoding: Any that writes ASCII as ASCII does.
        connect_timeout: How many seconds one attempt to connect may take.
        retries: How often to try again to connect, with growing pauses, before giving up.

    Raises:
        SourceError: an argument cannot be used.

    Examples:
        >>> SocketTextSource("localhost", 9999).bounded
        False
    """

    bounded = False

    max_line_bytes: ClassVar[int] = 1 << 20
    """The longest line that is taken; a subclass may set another. It guards the memory."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        delimiter: str = "\n",
        encoding: str = "utf-8",
        connect_timeout: float = 10.0,
        retries: int = 0,
    ) -> None:
        if not isinstance(host, str):
            raise SourceError(f"a socket source needs the name or address of a host, not {host!r}")
        if type(port) is not int or not 0 < port < 65536:
            raise SourceError(f"a socket source needs a port from 1 to 65535, not {port!r}")
        if not delimiter:
            raise SourceError("a socket source needs a delimiter of at least one character")
        self.address = (host, port)
        self.encoding = check_encoding(encoding)
        self.delimiter = delimiter.encode(self.encoding)
        self.connect_timeout = connect_timeout
        self.retries = retries

    def create_reader(self, splits: Mapping[str, Any], context: SourceContext) -> SourceReader[str]:
        """Start to connect; a failure is raised by `read_batch`."""
        live = FunctionSource(self._open, replayable=False)
        return live.create_reader(splits, context)

    def _open(self, context: SourceContext) -> Feed[str]:
        connection = _Connection(self, context)
        return Feed(connection.lines(), connection.close, connection.interrupt)


class _Connection:
    """One connection to the server; all but `interrupt` is called on the source's thread."""

    def __init__(self, source: SocketTextSource, context: SourceContext) -> None:
        self._source = source
        self._context = context
        self._name = f"{source.address[0]}:{source.address[1]}"
        self._socket: socket.socket | None = None
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """Make a blocked `lines` end."""
        self._interrupted.set()
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # not connected any more: then nothing blocks

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()

    def lines(self) -> Iterator[str]:
        """Connect, and yield the lines until the server closes."""
        delimiter = self._source.delimiter
        cuts_return = delimiter == b"\n"
        connection = self._connect()
        tail, offset = b"", 0
        while connection is not None and (chunk := self._receive(connection, offset + len(tail))):
            *lines, tail = (tail + chunk).split(delimiter)
            for line in lines:
                yield self._decode(line.removesuffix(b"\r") if cuts_return else line, offset)
                offset += len(line) + len(delimiter)
            if len(tail) > self._source.max_line_bytes:
                raise self._too_long(offset)
        if tail and not self._interrupted.is_set():
            yield self._decode(tail, offset)

    def _connect(self) -> socket.socket | None:
        pause = _FIRST_PAUSE_SECONDS
        for left in range(self._source.retries, -1, -1):
            try:
                self._socket = connection = socket.create_connection(
                    self._source.address, self._source.connect_timeout
                )
            except OSError as error:
                if not left:
                    raise self._unreachable(error) from error
                self._context.logger.info(
                    "no connection to %s: %s; trying again", self._name, error
                )
                if self._interrupted.wait(pause):
                    return None
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                connection.settimeout(None)
                return None if self._interrupted.is_set() else connection
        return None

    def _receive(self, connection: socket.socket, received: int) -> bytes:
        try:
            return connection.recv(_CHUNK)
        except OSError as error:
            if self._interrupted.is_set():
                return b""
            raise SourceError(
                f"the connection to {self._name} broke after {received} bytes: {error}; what the "
                "server sent since cannot be had again"
            ) from error

    def _decode(self, line: bytes, offset: int) -> str:
        if len(line) > self._source.max_line_bytes:
            raise self._too_long(offset)
        try:
            return line.decode(self._source.encoding)
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{self._name}: the bytes {line[error.start : error.end]!r} at offset "
                f"{offset + error.start} of the stream are not {error.encoding} ({error.reason}); "
                "name the encoding that the server sends"
            ) from error

    def _too_long(self, offset: int) -> SourceError:
        return SourceError(
            f"{self._name}: the line at offset {offset} of the stream is longer than "
            f"{self._source.max_line_bytes} bytes; is {self._source.delimiter!r} the delimiter "
            "that the server sends? A subclass of SocketTextSource may set max_line_bytes"
        )

    def _unreachable(self, error: OSError) -> SourceError:
        tried = f" ({self._source.retries + 1} attempts)" if self._source.retries else ""
        return SourceError(
            f"cannot connect to {self._name}{tried}: {error}; start the server first (to try: "
            f"nc -lk {self._source.address[1]}), check host and port, or give retries=…"
        )
