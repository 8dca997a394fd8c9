"""What happens rarely: a full process, an answer that is too late for its caller, a question over which all died,
and a submission that was cut and is found.
"""

import asyncio
import json
import re
from datetime import UTC, datetime

from tests.canaries.driving import SUBMIT, Asked, answered, ask, question, request
from tests.canaries.planted import BORN, FAMILY, GIVEN, HASTY_SECRET, MEMBER, PACED_SECRET, SSN
from tests.canaries.run import MAX_IN_FLIGHT, Life
from tests.scripted import Request


async def all_rarities(one: Life) -> None:
    """Each of them, once."""
    await crowded(one)
    await paced(one)
    await too_late(one)
    await spent(one)
    await recovered(one)


async def crowded(one: Life) -> None:
    """One request more than one of several callers may have under way in a process."""
    one.answering.release.clear()
    before, share = len(one.upstream.requests), MAX_IN_FLIGHT * 4 // 5
    raw = [request(body=question(f"crowd {number}"), scenario="held") for number in range(share)]
    asked = [asyncio.create_task(ask(one.process.url, each)) for each in raw]
    await one.upstream.is_asked(before + share)
    one_more = Asked(request(body=question("one more")), 503, "overloaded")
    await one.tell("one more than there is room for", one_more, is_followed=False)
    one.answering.release.set()
    assert {got.status for got in await asyncio.gather(*asked)} == {200}


async def paced(one: Life) -> None:
    """One request more than a caller may ask in an hour."""
    raw = request("GET", f"{SUBMIT}/transactions/{MEMBER}", framing="", secret=PACED_SECRET)
    await one.tell("the only one in an hour", Asked(raw, 200))
    await one.tell("one more in the hour", Asked(raw, 429, "too_many_requests"))


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
