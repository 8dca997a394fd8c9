"""What happens rarely: a full process, an answer that is too late for its caller, a question over which all died,
and a submission that was cut and is found.
"""

import asyncio
import json
import re
from datetime import UTC, datetime

from tests.canaries.driving import SUBMIT, Asked, answered, ask, question, request
from tests.canaries.planted import BORN, FAMILY, GIVEN, HASTY_SECRET, MEMBER, SSN
from tests.canaries.run import MAX_IN_FLIGHT, Life
from tests.scripted import Request


async def all_rarities(one: Life) -> None:
    """Each of them, once."""
    await crowded(one)
    await too_late(one)
    await spent(one)
    await recovered(one)


async def crowded(one: Life) -> None:
    """One request more than a process takes upon itself."""
    one.answering.release.clear()
    before = len(one.upstream.requests)
    raw = [request(body=question(f"crowd {number}"), scenario="held") for number in range(MAX_IN_FLIGHT)]
    asked = [asyncio.create_task(ask(one.process.url, each)) for each in raw]
    await one.upstream.is_asked(before + MAX_IN_FLIGHT)
    one_more = Asked(request(body=question("one more")), 503, "overloaded")
    await one.tell("one more than there is room for", one_more, is_followed=False)
    one.answering.release.set()
    assert {got.status for got in await asyncio.gather(*asked)} == {200}


async def too_late(one: Life) -> None:
    """An answer that comes after its caller's time, and is kept for nobody."""
    target = f"{SUBMIT}/transactions/{MEMBER}"
    raw = request("GET", target, framing="", scenario="late", secret=HASTY_SECRET)
    await one.tell("too late for its caller", Asked(raw, 504, "deadline_exceeded"))


async def spent(one: Life) -> None:
    """A question of which Redis says that whoever asked it died."""
    before = {key async for key in one.redis.scan_iter("eg:flight:*")}
    raw = request(body=question("spent"))
    await one.tell("before it is spent", Asked(raw, 200), is_followed=False)
    (key,) = {key async for key in one.redis.scan_iter("eg:flight:*")} - before
    await one.redis.hset(key, mapping={"st": "P", "own": "nobody", "try": 9, "dl": 0})
    await one.tell("spent", Asked(raw, 503, "question_spent"))
    await one.redis.delete(key)


async def recovered(one: Life) -> None:
    """A submission that was cut, and is found under its correlation id."""
    one.answering.look_up = look_up
    raw = request(body=question("recovered"), scenario="cut by a gateway")
    await one.tell("recovered", Asked(raw, 200))
    one.answering.look_up = None
    assert b"; detail=recovered" in one.evidence.replies["recovered"][1].raw


def look_up(asked: Request) -> bytes:
    """The list of what stands under a correlation id, or the one transaction that does."""
    listed = re.search(rb"correlationId=([^& ]+)", asked.line)
    (known,) = (listed[1].decode(),) if listed is not None else asked.values("x-optum-correlation-id")
    transaction = {
        "id": MEMBER,
        "sourceType": "new",
        "correlationId": known,
        "processedDate": datetime.now(UTC).isoformat(),
        "status": {"value": "eligible"},
        "subscriber": {"memberId": MEMBER, "firstName": GIVEN, "lastName": FAMILY, "dateOfBirth": BORN, "ssn": SSN},
    }
    return answered(body=json.dumps([transaction] if listed is not None else transaction).encode())
