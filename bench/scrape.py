"""Reading a peer's or the upstream's metrics, and telling the upstream to answer what it holds."""

import http.client
import socket
from typing import Final

from bench.messages import PATH_RELEASE

IN_FLIGHT: Final = "eligibility_gateway_requests_in_flight"
_HOST: Final = "127.0.0.1"
_PATIENCE_S: Final = 15.0


def fetch(port: int, path: str) -> str:
    """Return what stands there."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def drain(port: int) -> None:
    """Ask for the metrics and read them as cheaply as can be."""
    buffer = bytearray(1_048_576)
    with socket.create_connection((_HOST, port), _PATIENCE_S) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while connection.recv_into(buffer):
            pass


def metric(port: int, name: str) -> int:
    """Return the sum of a metric over its labels; 0 if there is none."""
    lines = fetch(port, "/metrics").splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def release(upstream_port: int) -> None:
    """Have the upstream answer everything that it holds."""
    fetch(upstream_port, PATH_RELEASE)
