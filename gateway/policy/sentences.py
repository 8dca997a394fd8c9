"""What a change of one value means for those who ask, one sentence for each value there is.

Rules
- Every value of a policy, and of a caller's entry, is in SENTENCES, or it decides who may ask, or it is counted: a test
  walks the model.
- A value of `headers.set` may be a secret, and so is what a digest is made of: their sentences say neither.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Says(NamedTuple):
    """Of one value. `less` and `more` go on where a duration or a number shrank or grew."""

    says: str
    less: str = ""
    more: str = ""
    voids: bool = False  # the value is part of every question: those asked before have other keys


class Chosen(NamedTuple):
    """Of a value with few spellings: a sentence for each new one."""

    says: Mapping[str, str]
    voids: bool = False


class Listed(NamedTuple):
    """Of a list, or of a mapping by its names: for each entry that came, went, or has another value."""

    gained: str
    lost: str
    other: str = ""
    voids: bool = False


class Secrets(NamedTuple):
    """Of how many secrets came and went: to and from nobody, and from and to another caller."""

    gained: str
    taken: str
    lost: str
    given: str


Sentence = Says | Chosen | Listed

VOIDED: Final = "; answers given earlier are not found: what they answer is asked again, and paid for"
COUNTED: Final = "counted alone: dedup.mode is shadow"
NOT_KEPT: Final = "requests that come at the same time share one call, and no answer is replayed"
ALONG: Final = "takes effect with {path}"

# Which requests a value concerns is compared itself: who may ask for what, and what governs it.
DECIDING: Final = frozenset({"match.operations", "match.callers", "match.forward", "caller.operations"})
# Secrets are no value that is said: they are counted.
COUNTED_ONLY: Final = frozenset({"caller.secret_sha256"})

SECRETS: Final = Secrets(
    gained="{secrets} newly accepted",
    taken="{secrets} another caller's until now, and this one's from now on",
    lost="{secrets} no longer accepted",
    given="{secrets} another caller's from now on",
)

# Of a platform whose tokens name the caller: what changed is said by its path.
ISSUER: Final = "tokens of the issuer {name} are judged by another value"

SENTENCES: Final[Mapping[str, Sentence]] = MappingProxyType(
    {
        "timeout.connect": Says("a connection may take {new} to open instead of {old}"),
        "timeout.answer": Says("the upstream has {new} to answer instead of {old}"),
        "timeout.caller": Says("a caller is answered within {new} instead of {old}, by a 504 if need be"),
        "timeout.enterprise_gateway": Says(
            "for nobody's answer: a cut at {new}, not {old}, is the enterprise gateway's"
        ),
        "timeout.clearinghouse": Says("for nobody's answer: a cut at {new}, not {old}, is the clearinghouse's"),
        "headers.subtenant": Says("is asked on behalf of the subtenant {new} instead of {old}", voids=True),
        "headers.subtenant_choices": Listed(
            "a caller may name the subtenant {new} itself",
            "a caller may no longer name the subtenant {old}: a request that does is refused with 403",
        ),
        "headers.set": Listed(
            "the header is set from now on, whatever a caller sends",
            "the header is no longer set: what a caller sends under its name passes, unless it is removed",
            "the header is set to another value",
        ),
        "headers.remove": Listed(
            "the header {new} no longer passes upstream",
            "the header {old} passes upstream from now on, unless it is set",
        ),
        "token.inject": Chosen(
            {
                "true": "the gateway's token is sent from now on",
                "false": "no token is sent from now on: the upstream refuses whatever needs one",
            },
            voids=True,
        ),
        "token.retry_unauthorized": Chosen(
            {
                "true": "a 401 from upstream is tried once more with a new token",
                "false": "a 401 from upstream is passed on as it is",
            }
        ),
        "dedup.mode": Chosen(
            {
                "enforce": "one question is asked once, and its answer is replayed for at most {longest}",
                "shadow": "every request goes upstream and is paid for; what would be replayed is counted",
                "off": "every request goes upstream and is paid for",
            }
        ),
        "dedup.window": Says(
            "an answer is replayed for at most {new} instead of {old}",
            less="; those given earlier are asked for again, and paid for",
            more="; those kept until now go when they would have gone",
        ),
        "dedup.exclude_prior_month": Chosen(
            {
                "true": "an answer of an earlier month is no longer replayed",
                "false": "an answer of an earlier month is replayed as well: coverage may have changed since",
            }
        ),
        "dedup.time_zone": Says("months begin as they do in {new}, not in {old}"),
        "dedup.outcomes": Listed(
            "an answer with this outcome is replayed from now on, for at most {new}",
            "an answer with this outcome is no longer replayed: it is asked for again, and paid for",
            "an answer with this outcome is replayed for at most {new} instead of {old}",
        ),
        "dedup.fields.ignored": Listed(
            "requests that differ in {new} alone become one question",
            "requests that differ in {old} alone are two questions again",
            voids=True,
        ),
        "dedup.fields.case_folded": Listed(
            "the case of {new} no longer counts",
            "the case of {old} counts from now on",
            voids=True,
        ),
        "dedup.fields.sets": Listed(
            "the order of {new} no longer counts",
            "the order of {old} counts from now on",
            voids=True,
        ),
        "dedup.share": Chosen(
            {
                "subtenant": "an answer is shared by all callers of the subtenant",
                "caller": "an answer is given to the caller alone that asked, and to no other of its subtenant",
            },
            voids=True,
        ),
        "dedup.store_unavailable": Chosen(
            {
                "bypass": "without Redis the upstream is asked, once for each process",
                "reject": "without Redis requests are refused with 503",
            }
        ),
        "recover.within": Says("a submission that was cut is looked up for {new} instead of {old}"),
        "recover.attempts": Says("a submission that was cut is looked up at most {new} times instead of {old}"),
        "recover.pause": Says("the first look at what was cut is {new} after the cut instead of {old}"),
        "audit.unavailable": Chosen(
            {
                "proceed": "while the audit trail cannot be written requests pass, and what is lost of it is counted",
                "reject": "while the audit trail cannot be written requests are refused with 503",
            }
        ),
        "metrics.payers": Listed(
            "for nobody's answer: the latency of {new} is shown by name",
            "for nobody's answer: the latency of {old} is shown as that of `other`",
        ),
        "caller.certificates": Listed(
            "whoever has a certificate with the name {new} is this caller from now on",
            "a certificate with the name {old} is no longer this caller's",
        ),
        "caller.subjects": Listed(
            "whoever has a token for {new} is this caller from now on",
            "a token for {old} is no longer this caller's",
        ),
        "caller.limits.in_flight": Says("{new} of its requests are under way at once at most, instead of {old}"),
        "caller.limits.rate": Says("it may ask {new} instead of {old}; what is more waits, and is then refused"),
        "caller.limits.burst": Says("after a pause it may ask {new} at once instead of {old}"),
        "caller.limits.queue": Says("{new} of its requests may wait for their turn instead of {old}"),
        "caller.limits.wait": Says("a request waits {new} for its turn instead of {old}, and is then refused with 429"),
        "caller.subtenant": Says("is asked on behalf of the subtenant {new} instead of {old}", voids=True),
        "caller.subtenant_choices": Listed(
            "it may name the subtenant {new} itself",
            "it may no longer name the subtenant {old}: a request that does is refused with 403",
        ),
    }
)
