"""Callers with TLS: one connection at a time, on a socket of their own."""

import asyncio
import socket
import ssl
import threading
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509

from tests.tls.authority import Authority, Files

QUESTION = b"GET /rcm/eligibility/v1/healthcheck HTTP/1.1\r\nHost: gateway\r\n\r\n"


def believing(authority: Authority, files: Files | None = None) -> ssl.SSLContext:
    """A caller's context, with a certificate of its own if it has one."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if files is not None:
        context.load_cert_chain(*files)
    return context


class Caller:
    """One connection with TLS; it blocks, so it lives in a thread."""

    def __init__(self, url: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        parts = urlsplit(url)
        plain = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost", session=session)
        except BaseException:
            plain.close()
            raise

    def ask(self, question: bytes = QUESTION) -> bytes:
        """Return the head of the answer, and read the rest away."""
        self.socket.sendall(question)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = self.socket.recv(65_536)
            if not part:
                raise ConnectionResetError("the connection was closed")
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += self.socket.recv(65_536)
        return head

    @property
    def shown(self) -> int:
        """The serial number of the certificate that was shown."""
        return x509.load_der_x509_certificate(self.socket.getpeercert(binary_form=True) or b"").serial_number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def serial(certificate: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate).serial_number


def ask_once(url: str, context: ssl.SSLContext) -> int:
    """Connect, ask, and return which certificate was shown."""
    with Caller(url, context) as caller:
        assert caller.ask().startswith(b"HTTP/1.1 ")
        return caller.shown


class Storm:
    """Callers that connect and ask, again and again, and what befell them."""

    def __init__(self, url: str, context: ssl.SSLContext, callers: int = 3) -> None:
        self._url, self._context = url, context
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(callers)]
        self.shown: list[int] = []
        self.failures: list[BaseException] = []

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self.shown.append(ask_once(self._url, self._context))
            except (OSError, AssertionError) as error:
                self.failures.append(error)

    async def __aenter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)


def swap(link: Path, target: Path) -> None:
    """Point a link elsewhere in one step, as the kubelet does with `..data`."""
    fresh = link.with_name(f"{link.name}.next")
    fresh.symlink_to(target, target_is_directory=True)
    fresh.replace(link)
