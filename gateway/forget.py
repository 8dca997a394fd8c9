"""Remove what is stored, from outside of a running gateway: the composition root of `eligibility-gateway forget`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Final

from gateway.connect import connect
from gateway.dedup.compare import field_rules
from gateway.dedup.fingerprint import KEY_PREFIX, Naming, questions_of, subtenant_pattern
from gateway.dedup.store import FlightStore
from gateway.policy.files import PolicySet
from gateway.sealing import Sealing
from gateway.settings import Settings
from gateway.store import Store

_AT_ONCE: Final = 200


def patterns(policies: PolicySet, name: Naming, *, body: bytes | None, subtenant: str | None) -> tuple[bytes, ...]:
    """Return the patterns of the keys to forget: of a body, of a subtenant, of both at once, or of all.

    A body is looked for under the field rules of every policy, and on behalf of every subtenant that a policy file
    names, unless one is given. Raises NotCanonical.
    """
    if body is None:
        return (f"{KEY_PREFIX}*".encode(),) if subtenant is None else (subtenant_pattern(name, subtenant),)
    subtenants = {subtenant} if subtenant is not None else {"", *policies.subtenants}
    rules = {field_rules(policy.dedup.fields) for policy in policies.policies}
    questions = [question for one in rules for question in questions_of(body, one)]
    return tuple({question.pattern(name, one): None for question in questions for one in subtenants})


def forget(settings: Settings, wanted: Iterable[bytes]) -> tuple[int, int]:
    """Remove what is stored under these patterns; return how many answers that were, and how many questions are left.

    These are counted only where nothing was found. Raises StoreUnavailable.
    """
    return asyncio.run(_forget(settings, wanted))


async def _forget(settings: Settings, wanted: Iterable[bytes]) -> tuple[int, int]:
    answer_s = settings.redis_timeout_s
    client = connect(settings.redis_url.get_secret_value(), answer_s)
    runner = Store(client, on_error=lambda _: None, answer_s=answer_s)
    store = FlightStore(runner, runner, Sealing(settings.keys), lambda: None)
    forgotten = others = 0
    try:
        for pattern in wanted:
            async with aclosing(_in_batches(runner.scan(pattern))) as batches:
                async for keys in batches:
                    forgotten += sum(await asyncio.gather(*(store.forget(key) for key in keys)))
        if not forgotten:
            async for _ in runner.scan(f"{KEY_PREFIX}*".encode()):
                others += 1
    finally:
        await runner.close()
    return forgotten, others


async def _in_batches(keys: AsyncIterator[bytes]) -> AsyncGenerator[list[bytes], None]:
    batch: list[bytes] = []
    async for key in keys:
        batch.append(key)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
