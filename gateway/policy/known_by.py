"""What a change of the policy files does to who a caller is, and to how much of a process it may take."""

from collections.abc import Iterator
from typing import Final

from gateway.policy.callers import ANONYMOUS, Caller, Issuer
from gateway.policy.change import Change, entry_change, written
from gateway.policy.files import PolicySet
from gateway.policy.sentences import ISSUER, SECRETS, SENTENCES, Listed, Says

_LEFT_OUT: Final = {"burst": "those of one second"}
_NOTHING: Final = ("nothing", "sending none")


def of_caller(old: PolicySet, new: PolicySet, name: str) -> Iterator[Change]:
    """Say what happens to one caller, whatever it asks for."""
    before, after = _digests(old), _digests(new)
    if name == ANONYMOUS and name in old.callers and name in new.callers and bool(before) is not bool(after):
        yield Change(
            says="whoever sends a secret that is nobody's is refused from now on"
            if after
            else "whoever sends a secret is let in as well from now on: no caller has one"
        )
    if name not in new.callers:
        if not _may_ask(old, name):
            yield Change(says="is no caller any more; it could ask for nothing before")
        return
    gained = {digest for digest, owner in after.items() if owner == name and before.get(digest) != name}
    lost = {digest for digest, owner in before.items() if owner == name and after.get(digest) != name}
    taken, given = gained & before.keys(), lost & after.keys()
    if name not in old.callers:
        yield Change(says=f"is a caller from now on, known by {_all_of(new.callers[name], len(gained))}")
        if taken:
            yield Change(path="caller.secret_sha256", says=_counted(SECRETS.taken, len(taken), was=True))
        return
    told = (
        _counted(SECRETS.gained, len(gained - taken)),
        _counted(SECRETS.taken, len(taken), was=True),
        _counted(SECRETS.lost, len(lost - given)),
        _counted(SECRETS.given, len(given)),
    )
    yield from _of_entry(old.callers[name], new.callers[name])
    yield from _of_issuers(old, new, name)
    if says := "; ".join(filter(None, told)):
        yield Change(
            path="caller.secret_sha256",
            old=_secrets(list(before.values()).count(name)),
            new=_secrets(list(after.values()).count(name)),
            says=says,
        )


def _all_of(caller: Caller, secrets: int) -> str:
    """By what a caller is known, in words."""
    entry = caller.entry
    counted = ((secrets, "secret"), (len(entry.certificates), "certificate"), (len(entry.subjects), "subject"))
    return (
        " and ".join(_counted_of(count, what) for count, what in counted if count) or _NOTHING[caller.name == ANONYMOUS]
    )


def _of_entry(old: Caller, new: Caller) -> Iterator[Change]:
    """Say by what else a caller is known, and how much it may take."""
    for field in ("certificates", "subjects"):
        path, was, becomes = f"caller.{field}", set(getattr(old.entry, field)), set(getattr(new.entry, field))
        sentence = SENTENCES[path]
        if isinstance(sentence, Listed):
            yield from (entry_change(path, sentence.gained, new=one) for one in sorted(becomes - was))
            yield from (entry_change(path, sentence.lost, old=one) for one in sorted(was - becomes))
    limits = _limits(new)
    for path, before in _limits(old).items():
        sentence, after = SENTENCES[path], limits[path]
        if before != after and isinstance(sentence, Says):
            yield Change(path=path, old=before, new=after, says=sentence.says.format(old=before, new=after))


def _limits(caller: Caller) -> dict[str, str]:
    stated = caller.entry.limits.model_dump(mode="json")
    return {
        f"caller.limits.{field}": _LEFT_OUT.get(field, "no limit") if value is None else str(value)
        for field, value in stated.items()
    }


def _of_issuers(old: PolicySet, new: PolicySet, name: str) -> Iterator[Change]:
    """Say what changed in how the tokens of those are judged who vouch for a caller, before and after."""
    vouching = [{one.partition("/")[0] for one in policies.callers[name].entry.subjects} for policies in (old, new)]
    for issuer in sorted(set.intersection(*vouching)):
        before, after = (_issuer(policies.issuers[issuer]) for policies in (old, new))
        for field, was in before.items():
            if was != after[field]:
                says = ISSUER.format(name=issuer)
                yield Change(path=f"issuers.{issuer}.{field}", old=was, new=after[field], says=says)


def _issuer(issuer: Issuer) -> dict[str, str]:
    return {field: written(value) for field, value in issuer.model_dump(mode="json").items()}


def _may_ask(policies: PolicySet, name: str) -> bool:
    table = policies.table
    return any(caller == name for _, caller in table.operations) or any(
        name in governed for _, governed in table.routes
    )


def _digests(policies: PolicySet) -> dict[str, str]:
    return {digest: caller.name for caller in policies.callers.values() for digest in caller.entry.digests}


def _counted(sentence: str, count: int, *, was: bool = False) -> str:
    """A sentence of so many secrets; of none there is none."""
    verb = ("was" if was else "is") if count == 1 else ("were" if was else "are")
    return sentence.format(secrets=f"{_secrets(count)} {verb}") if count else ""


def _secrets(count: int) -> str:
    return _counted_of(count, "secret")


def _counted_of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
