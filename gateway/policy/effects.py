"""What a policy does that its author may not think of."""

from collections.abc import Iterator

from gateway.operations import QUESTIONS
from gateway.policy.model import FieldsClause, Policy
from gateway.policy.values import ANY


def effects(policy: Policy) -> Iterator[str]:
    """Yield what is valid in a `dedup:` clause, and does less than it seems to."""
    if not {ANY, *QUESTIONS} & set(policy.match.operations):
        yield f"has no effect: it concerns {' and '.join(sorted(QUESTIONS))}"
        return
    if not any(min(policy.dedup.window, limit) for limit in policy.dedup.outcomes.values()):
        yield (
            "replays nothing with a window of 0s, for all or for each outcome: requests at the same time share one "
            "call, later ones do not"
        )
    for path in FieldsClause().ignored:
        if path not in policy.dedup.fields.ignored:
            yield f"takes two requests that differ in {path} alone for two: a list in fields replaces the default"
