"""What came of asking the issuer, and the status with which it said no."""

import aiohttp
import pytest

from gateway.token.client import TokenClient
from gateway.token.life import Answer, Cause, Issued, NotIssued
from tests.scripted import ScriptedUpstream, reply


async def fetch(token_reply: bytes) -> Answer:
    async with ScriptedUpstream(token_reply=token_reply) as upstream, aiohttp.ClientSession() as session:
        return await TokenClient(session, f"{upstream.url}/apip/auth/v2/token", "id", "secret").fetch()


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_says_with_which_status(status: int) -> None:
    assert await fetch(reply(f"{status} No")) == NotIssued(Cause.REFUSED, status=status)


@pytest.mark.parametrize("status", [201, 204, 302, 404, 405, 410, 500, 503])
async def test_whatever_else_is_not_200_says_with_which_status(status: int) -> None:
    answer = await fetch(reply(f"{status} Odd", b"", ("Location: /", "Retry-After: 7")))

    assert answer == NotIssued(Cause.UNAVAILABLE, status=status)
    assert isinstance(answer, NotIssued)
    assert answer.is_reachable


@pytest.mark.parametrize(("asked", "wait_s"), [("7", 7.0), ("0", 0.0), ("-7", 0.0), ("soon", 0.0), ("\u0667", 0.0)])
async def test_too_many_says_for_how_long_and_with_which_status(asked: str, wait_s: float) -> None:
    headers = (f"Retry-After: {asked}".encode().decode("latin-1"),)

    assert await fetch(reply("429 Too Many", b"{}", headers)) == NotIssued(Cause.UNAVAILABLE, wait_s, 429)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"access_token":""}', b'{"access_token":"a\\nb"}'])
async def test_a_200_without_a_token_has_no_status_to_tell(body: bytes) -> None:
    assert await fetch(reply(body=body)) == NotIssued(Cause.UNAVAILABLE)


async def test_a_token_is_issued() -> None:
    assert await fetch(reply(body=b'{"access_token":"t0k3n","expires_in":60}')) == Issued("t0k3n", 60.0)


async def test_where_nobody_answers_there_is_no_status() -> None:
    async with aiohttp.ClientSession() as session:
        answer = await TokenClient(session, "http://127.0.0.1:1/token", "id", "secret").fetch()

    assert answer == NotIssued(Cause.UNAVAILABLE, is_reachable=False)
