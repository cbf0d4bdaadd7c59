"""A real SOCKS5 proxy on loopback (RFC 1928, without authentication) that leads every name to one port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def socks_proxy(port: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy that connects to `port`, and the hosts that it is asked for."""
    hosts: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_accept, args=(listening, port, hosts), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", hosts


def _accept(listening: socket.socket, port: int, hosts: list[str]) -> None:
    while True:
        try:
            client = listening.accept()[0]
        except OSError:
            return
        with client, client.makefile("rb") as reading:
            reading.read(reading.read(2)[1])
            client.sendall(b"\x05\x00")
            kind = reading.read(4)[3]
            host = reading.read(4 if kind == 1 else reading.read(1)[0])
            reading.read(2)
            hosts.append(host.decode() if kind == 3 else socket.inet_ntoa(host))
            with socket.create_connection(("127.0.0.1", port)) as server:
                client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
                back = threading.Thread(target=_copy, args=(server, client))
                back.start()
                _copy(client, server)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
