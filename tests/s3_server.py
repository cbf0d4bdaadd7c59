"""A server that speaks S3's protocol, on loopback, in a process of its own: moto's, with a bucket in it.

moto looks whether a condition holds, and writes afterwards; S3 does both at once, and so does this: one request a time.

    python -m tests.s3_server     prints its port, then serves until its stdin ends
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

DEADLINE_S = 60
# moto takes any.
KEY_ID, KEY = "key-of-the-tests", "secret-of-the-tests"


@contextmanager
def s3_server(bucket: str = "team") -> Iterator[str]:
    """Run a server with an empty bucket; gives its address, `http://127.0.0.1:<port>`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        _make_bucket(f"{address}/{bucket}")
        yield address
    finally:
        process.stdin.close()
        process.wait(DEADLINE_S)
        process.stdout.close()


def _make_bucket(address: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="PUT"), timeout=DEADLINE_S).close()
        except urllib.error.URLError:
            assert time.monotonic() < deadline
        else:
            return


def _serve() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def whole(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        with one_at_a_time:
            answer: Iterable[bytes] = application(environ, start)
            return answer

    server = make_server("127.0.0.1", 0, whole, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.write(1, f"{server.server_port}\n".encode())
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    _serve()
