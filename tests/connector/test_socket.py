"""Sockets: lines arrive as they are sent, faults are named, and closing never hangs."""

import socket
import threading
from contextlib import closing, contextmanager

import pytest

from sage.common.errors import SourceError
from sage.connector.socket import SocketTextSource
from sage.testing import StandaloneContext
from sage.testing.context import wait_batch


@contextmanager
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening, listening.getsockname()[1]


@contextmanager
def connected(**options):
    """A reader, its context, and the server's end of its connection."""
    with server() as (listening, port):
        context = StandaloneContext(operator_name="net")
        source = SocketTextSource("127.0.0.1", port, **options)
        with closing(source.create_reader({"": None}, context)) as reader:
            peer = listening.accept()[0]
            with peer:
                yield reader, context, peer


def read_rest(reader, context):
    lines = []
    while (batch := wait_batch(reader, context)) is not None:
        lines += batch
    return lines


def test_a_line_can_be_read_as_soon_as_it_was_sent():
    with connected() as (reader, context, peer):
        for text in ("first", "", "drîtte"):
            peer.sendall(text.encode() + b"\n")
            assert wait_batch(reader, context) == [text]


def test_lines_in_pieces_carriage_returns_and_the_last_line_without_end():
    with connected() as (reader, context, peer):
        for byte in "ä\r\nb\n\nc".encode():
            peer.sendall(bytes([byte]))
        peer.close()
        assert read_rest(reader, context) == ["ä", "b", "", "c"]


def test_another_delimiter_may_be_longer_than_a_character():
    with connected(delimiter="||") as (reader, context, peer):
        peer.sendall(b"a|")
        peer.sendall(b"|b\r\n||")
        peer.close()
        assert read_rest(reader, context) == ["a", "b\r\n"]


def test_bytes_that_are_no_text_are_named_with_their_offset():
    with connected() as (reader, context, peer):
        peer.sendall(b"good\nb\xffd\n")
        assert wait_batch(reader, context) == ["good"]
        with pytest.raises(SourceError, match=r"b'\\xff' at offset 6 of the stream are not utf-8"):
            read_rest(reader, context)


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["endless", "ended"])
def test_a_line_that_is_too_long_is_refused(monkeypatch, end):
    monkeypatch.setattr(SocketTextSource, "max_line_bytes", 1000)
    with connected() as (reader, context, peer):
        peer.sendall(b"ok\n" + b"x" * 1001 + end)
        with pytest.raises(SourceError, match="line at offset 3 of the stream is longer than 1000"):
            read_rest(reader, context)


def test_closing_while_nothing_is_sent_ends_at_once():
    with connected() as (reader, _, peer):
        assert reader.read_batch(1) == []
        reader.close()
        assert peer.recv(1) == b""


def test_a_broken_connection_is_an_error():
    with connected() as (reader, context, peer):
        peer.sendall(b"a\n")
        assert wait_batch(reader, context) == ["a"]
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(SourceError, match="broke after 2 bytes"):
            wait_batch(reader, context)


def free_port():
    with server() as (_, port):
        return port


def test_a_refused_connection_says_what_to_do():
    port = free_port()
    context = StandaloneContext()
    with (
        closing(SocketTextSource("127.0.0.1", port).create_reader({"": None}, context)) as reader,
        pytest.raises(SourceError, match=rf"127.0.0.1:{port}: .*start the server first"),
    ):
        wait_batch(reader, context)


def test_retries_connect_to_a_server_that_comes_later():
    port = free_port()
    context = StandaloneContext()
    source = SocketTextSource("127.0.0.1", port, retries=20)
    with (
        closing(source.create_reader({"": None}, context)) as reader,
        socket.create_server(("127.0.0.1", port)) as listening,
    ):
        listening.settimeout(10)
        with listening.accept()[0] as peer:
            peer.sendall(b"late\n")
        assert read_rest(reader, context) == ["late"]


def test_closing_between_two_attempts_ends_at_once():
    source = SocketTextSource("127.0.0.1", free_port(), retries=1000)
    source.create_reader({"": None}, StandaloneContext()).close()
    assert not [t for t in threading.enumerate() if t.name.startswith("sage-source")]


def test_a_restored_reader_goes_on_with_what_comes():
    with server() as (listening, port):
        context = StandaloneContext()
        source = SocketTextSource("127.0.0.1", port)
        with closing(source.create_reader({"": 7}, context)) as reader:
            with listening.accept()[0] as peer:
                peer.sendall(b"new\n")
            assert read_rest(reader, context) == ["new"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 0}, "port from 1 to 65535"),
        ({"delimiter": ""}, "delimiter"),
        ({"encoding": "utf-16"}, "cannot be read by lines"),
        ({"encoding": "klingon"}, "unknown encoding"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(SourceError, match=message):
        SocketTextSource(**{"host": "localhost", "port": 9999, **arguments})
