"""A platform that vouches for callers, as a Kubernetes cluster does: its keys, tokens, and where keys are published."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

NOW = 1_800_000_000.0
ISSUER, AUDIENCE = "https://cluster.example.org", "eligibility-gateway"
SUBJECT = "system:serviceaccount:scheduling:default"
Signing = RSAKey | ECKey | OKPKey

RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig", "alg": "RS256"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
NEXT = ECKey.generate_key("P-256", {"kid": "next"})


def token(
    key: Signing = RSA,
    algorithm: str = "RS256",
    now: float = NOW,
    head: Mapping[str, object] | None = None,
    **claims: object,
) -> str:
    """Issue a token as a cluster does; a claim that is None is left out."""
    stated: dict[str, Any] = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": SUBJECT,
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now) + 3600,
        **claims,
    }
    header = {"alg": algorithm, "kid": key.kid, **(head or {})}
    return jwt.encode(
        {name: value for name, value in header.items() if value is not None},
        {name: value for name, value in stated.items() if value is not None},
        key,
        algorithms=[algorithm],
    )


def published(*keys: Signing) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


@dataclass(slots=True)
class Publisher:
    """Publishes keys over HTTP, and counts who asks for them."""

    keys: bytes = published(RSA)
    status: int = 200
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.headers.get("Authorization", ""))
        if "application/jwk-set+json" not in request.headers.get("Accept", ""):
            return web.Response(status=406)  # as Kubernetes has it
        return web.Response(status=self.status, body=self.keys, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[Publisher]:
    runner = web.ServerRunner(web.Server(publisher))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    publisher.url = f"http://{host}:{port}/openid/v1/jwks"
    try:
        yield publisher
    finally:
        await runner.cleanup()


def token_now(key: Signing = RSA, algorithm: str = "RS256", **claims: object) -> str:
    """Issue one that is good now."""
    return token(key, algorithm, time.time(), None, **claims)
