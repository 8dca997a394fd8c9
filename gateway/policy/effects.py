"""What a policy does that its author may not think of."""

from collections.abc import Iterator
from typing import NamedTuple

from gateway.operations import QUESTIONS
from gateway.policy.model import DedupMode, FieldsClause, Policy
from gateway.policy.values import ANY, write_duration


class Effect(NamedTuple):
    """A value that is valid and does less than it seems to: where it stands, what it is, and what it does."""

    path: tuple[str, str]
    value: str
    says: str


def effects(policy: Policy) -> Iterator[Effect]:
    """Yield what is worth a word."""
    is_asking = bool({ANY, *QUESTIONS} & set(policy.match.operations))
    concerns = f"has no effect: it concerns {' and '.join(sorted(QUESTIONS))}"
    if policy.dedup.mode is not DedupMode.OFF:
        path, mode = ("dedup", "mode"), policy.dedup.mode.value
        told = _of_dedup(policy) if is_asking else (concerns,)
        yield from (Effect(path, mode, says) for says in told)
    if policy.recover.within:
        path, within = ("recover", "within"), write_duration(policy.recover.within)
        if not is_asking:
            yield Effect(path, within, concerns)
        elif policy.dedup.mode is not DedupMode.ENFORCE:
            yield Effect(path, within, "helps only callers who still wait: without dedup.mode: enforce nothing is kept")


def _of_dedup(policy: Policy) -> Iterator[str]:
    if not any(min(policy.dedup.window, limit) for limit in policy.dedup.outcomes.values()):
        yield (
            "replays nothing with a window of 0s, for all or for each outcome: requests at the same time share one "
            "call, later ones do not"
        )
    for path in FieldsClause().ignored:
        if path not in policy.dedup.fields.ignored:
            yield f"takes two requests that differ in {path} alone for two: a list in fields replaces the default"
