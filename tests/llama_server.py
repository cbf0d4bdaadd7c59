"""llama.cpp's OpenAI-compatible server: `python -m tests.llama_server WEIGHTS PORT`, on loopback.

It ends with its stdin, so that it does not outlive the tests, however those end.
"""

from __future__ import annotations

import sys


def serve(weights: str, port: int) -> None:
    """Serve the weights until stdin ends."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = weights
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 4_096
    params.n_parallel = 1
    params.use_jinja = True
    params.fit_params = False
    params.warmup = False
    # One thread, and none that spins: beside other work, threads that wait for each other take minutes.
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = 1
        cpu.poll = 0
    server = Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
