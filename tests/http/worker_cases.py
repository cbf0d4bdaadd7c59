"""What the workers do in the tests of what looks after them; small, as each of them imports it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable


def dies_at_start(number: int, listener: socket.socket, on_started: Callable[[], None]) -> None:
    """Die before anybody is served."""
    os._exit(3)


def dies_when_it_serves(number: int, listener: socket.socket, on_started: Callable[[], None]) -> None:
    """Die as soon as it was said that it serves."""
    on_started()
    os._exit(9)
