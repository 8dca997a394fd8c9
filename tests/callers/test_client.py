"""The keys of platforms, from a publisher that is asked over HTTP and from a file."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.callers.client import IssuerKeys, KeySources
from gateway.policy.callers import Issuer
from tests.callers.platform import AUDIENCE, EC, ISSUER, NEXT, RSA, Publisher, published, publishing
from tests.running import eventually


class Time:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, str]] = []


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def keys(time: Time) -> AsyncIterator[IssuerKeys]:
    kept = IssuerKeys(
        KeySources(now=lambda: time.now, on_fetched=lambda name, reason: time.told.append((name, reason)))
    )
    yield kept
    await kept.close()


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with publishing(Publisher()) as one:
        yield one


def issuer(jwks: str, **more: str) -> Issuer:
    return Issuer.model_validate({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks, **more})


async def test_keys_are_there_soon_after_the_issuer_is_declared(
    keys: IssuerKeys, publisher: Publisher, time: Time
) -> None:
    keys.adopt({"cluster": issuer(publisher.url)})
    assert len(keys.keys("cluster")) == 0
    await eventually(lambda: asyncio.sleep(0, len(keys.keys("cluster"))))
    assert time.told == [("cluster", "")]
    assert len(keys.keys("elsewhere")) == 0


async def test_of_many_who_want_a_key_one_look_is_enough_and_the_next_is_two_seconds_later(
    keys: IssuerKeys, publisher: Publisher, time: Time
) -> None:
    keys.adopt({"cluster": issuer(publisher.url)})
    assert all(await asyncio.gather(*(keys.look_again("cluster") for _ in range(50))))
    publisher.keys = published(RSA, NEXT)
    assert await keys.look_again("cluster")
    assert (len(publisher.asked), len(keys.keys("cluster"))) == (1, 1)
    time.now += 2
    assert await keys.look_again("cluster")
    assert (len(publisher.asked), len(keys.keys("cluster"))) == (2, 2)
    assert not await keys.look_again("elsewhere")


async def test_whoever_leaves_does_not_take_the_look_from_the_others(keys: IssuerKeys, publisher: Publisher) -> None:
    keys.adopt({"cluster": issuer(publisher.url)})
    leaving = asyncio.create_task(keys.look_again("cluster"))
    staying = asyncio.create_task(keys.look_again("cluster"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying


@pytest.mark.parametrize(
    ("status", "document", "reason"),
    [
        *[(500, published(EC), "status_500"), (302, published(EC), "status_302"), (404, b"", "status_404")],
        *[(200, b"no keys", "not_keys"), (200, b" " * 300_000, "too_large"), (200, b"", "not_keys")],
    ],
)
async def test_what_is_no_set_of_keys_takes_the_place_of_none_and_the_last_stand_for_an_hour(  # noqa: PLR0913, PLR0917 - a table
    status: int, document: bytes, reason: str, keys: IssuerKeys, publisher: Publisher, time: Time
) -> None:
    keys.adopt({"cluster": issuer(publisher.url)})
    await keys.look_again("cluster")
    publisher.status, publisher.keys = status, document
    time.now += 3599
    assert await keys.look_again("cluster")
    assert time.told == [("cluster", ""), ("cluster", reason)]
    time.now += 1
    assert len(keys.keys("cluster")) == 0
    time.now += 2
    assert not await keys.look_again("cluster")
    publisher.status, publisher.keys = 200, published(RSA)
    time.now += 2
    assert await keys.look_again("cluster")


async def test_keys_that_are_published_unchanged_keep_what_was_proven(
    keys: IssuerKeys, publisher: Publisher, time: Time
) -> None:
    keys.adopt({"cluster": issuer(publisher.url)})
    await keys.look_again("cluster")
    before = keys.keys("cluster")
    time.now += 2
    await keys.look_again("cluster")
    assert keys.keys("cluster") is before


async def test_a_publisher_that_wants_a_token_gets_what_its_file_holds_now(
    keys: IssuerKeys, publisher: Publisher, time: Time, tmp_path: Path
) -> None:
    bearer = tmp_path / "token"
    bearer.write_text("first\n")
    keys.adopt({"cluster": issuer(publisher.url, bearer_file=str(bearer))})
    await keys.look_again("cluster")
    bearer.write_text("second")
    time.now += 2
    await keys.look_again("cluster")
    bearer.unlink()
    time.now += 2
    assert await keys.look_again("cluster")
    assert publisher.asked == ["Bearer first", "Bearer second"]


async def test_keys_in_a_file_are_read_and_read_again(keys: IssuerKeys, time: Time, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys.adopt({"cluster": issuer(str(file))})
    assert not await keys.look_again("cluster")
    assert time.told == [("cluster", "ENOENT")]
    file.write_bytes(published(RSA, EC))
    time.now += 2
    assert await keys.look_again("cluster")
    assert len(keys.keys("cluster")) == 2


async def test_an_issuer_that_is_another_begins_anew_and_one_that_is_gone_is_asked_no_more(
    keys: IssuerKeys, publisher: Publisher, tmp_path: Path
) -> None:
    keys.adopt({"cluster": issuer(publisher.url), "file": issuer(str(tmp_path / "none"))})
    await keys.look_again("cluster")
    keys.adopt({"cluster": issuer(publisher.url)})
    assert len(keys.keys("cluster")) == 1
    keys.adopt({"cluster": issuer(publisher.url + "?again")})
    assert len(keys.keys("cluster")) == 0
    assert await keys.look_again("cluster")
    keys.adopt({})
    assert len(keys.keys("cluster")) == 0
    assert len(publisher.asked) == 2


async def test_an_issuer_that_withdraws_its_keys_is_believed_at_once(
    keys: IssuerKeys, publisher: Publisher, time: Time
) -> None:
    keys.adopt({"cluster": issuer(publisher.url)})
    await keys.look_again("cluster")
    publisher.keys = published()
    time.now += 2
    assert await keys.look_again("cluster")  # that it has none is known
    assert len(keys.keys("cluster")) == 0
