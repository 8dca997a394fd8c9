"""What a change of the policy files does, to whom.

Rules
- The domain is finite: the callers of both sets, times the nine operations and the routes that either forwards. For
  each, what governs before is held against what governs after; files, their order and their names do not matter.
- What counts is what is read: `dedup` and `recover` for questions alone, a window only with a mode, a list without its
  order, a subtenant whether the policy or the caller's entry names it.
- Neither a digest nor a value of `headers.set` leaves here: either may be somebody's secret.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from gateway.operations import OPERATIONS, QUESTIONS, OperationName
from gateway.policy.callers import CallerEntry
from gateway.policy.change import Change, entry_change, written
from gateway.policy.files import PolicySet
from gateway.policy.known_by import of_caller
from gateway.policy.match import Route
from gateway.policy.model import DedupClause, DedupMode, Policy
from gateway.policy.sentences import ALONG, COUNTED, NOT_KEPT, SENTENCES, VOIDED, Chosen, Listed, Sentence
from gateway.policy.values import write_duration

Request = OperationName | str  # an operation, or a route as a file has it

_BELOW: Final = "|"  # no route may hold it: a path that only the prefix itself covers
_HEADERS: Final = frozenset({"headers.set", "headers.remove"})
_ANSWERING: Final = "x-optum-"
_BODILESS: Final = frozenset({"GET", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Callers and requests to which the same happens. Without requests: whatever they ask for."""

    callers: tuple[str, ...]
    requests: tuple[str, ...]
    changes: tuple[Change, ...]


def diff(old: PolicySet, new: PolicySet) -> tuple[Affected, ...]:
    """Say to whom what happens if the one set takes the place of the other; nothing: to nobody."""
    callers = sorted({*old.callers, *new.callers})
    routes = {text for policies in (old, new) for policy in policies.policies for text in policy.match.forward}
    requests: tuple[Request, ...] = (*OperationName, *sorted(routes))
    found: dict[Change, dict[str, list[str]]] = {}
    for caller in callers:
        for change in of_caller(old, new, caller):
            found.setdefault(change, {}).setdefault(caller, [])
    for request in requests:
        for caller in callers:
            for change in _of_request(old, new, request, caller):
                found.setdefault(change, {}).setdefault(caller, []).append(str(request))
    return _grouped(found)


def _grouped(found: Mapping[Change, Mapping[str, Sequence[str]]]) -> tuple[Affected, ...]:
    """Gather the callers to whose same requests a change happens, and then the changes that happen to the same ones."""
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Change]] = {}
    for change, by_caller in found.items():
        by_requests: dict[tuple[str, ...], list[str]] = {}
        for caller, requests in by_caller.items():
            by_requests.setdefault(tuple(requests), []).append(caller)
        for concerned, callers in by_requests.items():
            alike.setdefault((tuple(callers), concerned), []).append(change)
    return tuple(
        Affected(callers=callers, requests=concerned, changes=tuple(changes))
        for (callers, concerned), changes in alike.items()
    )


# --- who may ask ----------------------------------------------------------------------------------------------------


def _of_request(old: PolicySet, new: PolicySet, request: Request, caller: str) -> Iterator[Change]:
    before, after = _governing(old, request, caller), _governing(new, request, caller)
    if before is None and after is not None:
        yield Change(says=f"may ask from now on (policy {after.name})")
    elif before is not None and after is None:
        yield Change(says=f"is refused from now on: {_why_refused(new, request, caller)}")
    elif before is not None and after is not None:
        entries = old.callers[caller].entry, new.callers[caller].entry
        changes = tuple(_of_values(_Sides(before, after, *entries, request)))
        if before.name != after.name:
            says = "another policy governs" if changes else "another policy governs, with the same values"
            yield Change(path="policy", old=before.name, new=after.name, says=says)
        yield from changes


def _governing(policies: PolicySet, request: Request, caller: str) -> Policy | None:
    if isinstance(request, OperationName):
        return policies.table.govern(request, "", "", caller)
    route = Route.parse(request)
    return policies.table.govern(None, route.method, route.path + (_BELOW if route.is_prefix else ""), caller)


def _why_refused(new: PolicySet, request: Request, caller: str) -> str:
    if caller not in new.callers:
        return "the caller is no longer declared"
    if not new.callers[caller].may_use(request if isinstance(request, OperationName) else None):
        return "the caller's entry no longer lists it"
    return "no policy matches any more"


# --- what governs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sides:
    """What governs one request of one caller, before and after."""

    before: Policy
    after: Policy
    entry_before: CallerEntry
    entry_after: CallerEntry
    request: Request

    @property
    def keeps_answers(self) -> bool:
        """Whether answers given before could be replayed after."""
        return self.request in QUESTIONS and {self.before.dedup.mode, self.after.dedup.mode} == {DedupMode.ENFORCE}

    @property
    def has_body(self) -> bool:
        match self.request:
            case OperationName() as name:
                return OPERATIONS[name].method not in _BODILESS
            case route:
                return Route.parse(route).method not in _BODILESS


def _of_values(sides: _Sides) -> Iterator[Change]:
    before = _values(sides.before, sides.entry_before)
    after = _values(sides.after, sides.entry_after)
    if before["dedup.window"] != after["dedup.window"]:  # its sentence says what becomes of the others
        was, becomes = sides.before.dedup.outcomes, sides.after.dedup.outcomes
        for outcome in {one for one in was if was[one] == becomes.get(one)}:
            for values in (before, after):
                values["dedup.outcomes"].pop(outcome, None)
    for path, sentence in SENTENCES.items():
        if path in before and before[path] != after[path] and _is_read(path, sides):
            for change in _told(_named(path, sides), sentence, before[path], after[path], sides):
                along = _goes_along(path, sides)
                yield Change(path=change.path, old=change.old, new=change.new, says=along) if along else change


def _values(policy: Policy, entry: CallerEntry) -> dict[str, Any]:
    """Every value by its path, as it is read: what stands in for what is left out, and lists without their order."""
    values: dict[str, Any] = {
        path: frozenset(value) if isinstance(value, tuple) else value for path, value in _leaves(policy)
    }
    values["timeout.caller"] = policy.timeout.caller_s
    fixed = policy.headers.subtenant
    values["headers.subtenant"] = {"from-caller": entry.subtenant, "none": None}.get(fixed, fixed)
    values["headers.subtenant_choices"] |= frozenset(entry.subtenant_choices)
    values["headers.set"] = {name.lower(): value for name, value in policy.headers.set.items()}
    values["headers.remove"] = frozenset(name.lower() for name in policy.headers.remove)
    values["dedup.outcomes"] = _limits(policy.dedup)
    return values


def _limits(clause: DedupClause) -> dict[str, float]:
    """For how long answers are replayed, by what they say; none for which they are not."""
    limits = {outcome: min(clause.window, limit_s) for outcome, limit_s in clause.outcomes.items()}
    return {outcome: limit_s for outcome, limit_s in limits.items() if limit_s > 0}


def _leaves(clause: BaseModel, at: str = "") -> Iterator[tuple[str, object]]:
    for name in type(clause).model_fields:
        value, path = getattr(clause, name), f"{at}{name}"
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _is_read(path: str, sides: _Sides) -> bool:
    """Whether the value changes anything for this request."""
    after = sides.after
    match path.split("."):
        case ["dedup", *rest]:
            is_on = rest == ["mode"] or after.dedup.mode is not DedupMode.OFF
            return sides.request in QUESTIONS and is_on and _limits_anything(rest[-1], sides.before.dedup, after.dedup)
        case ["recover", *rest]:
            return sides.request in QUESTIONS and (rest == ["within"] or after.recover.within > 0)
        case ["token", "retry_unauthorized"]:
            return after.token.inject
        case ["metrics", *_]:
            return sides.has_body
        case _:
            return True


def _limits_anything(field: str, before: DedupClause, after: DedupClause) -> bool:
    """Whether a field that may limit for how long answers stand does so."""
    match field:
        case "window":
            return _limits(before) != _limits(after) or (before.window > 0) is not (after.window > 0)
        case "time_zone":
            return after.exclude_prior_month
        case _:
            return True


def _goes_along(path: str, sides: _Sides) -> str:
    """What is said instead of a value's sentence, where it begins to be read only now, or is read by a count alone."""
    before, after = sides.before, sides.after
    match path.split("."):
        case ["dedup", *rest] if rest != ["mode"] and after.dedup.mode is DedupMode.SHADOW:
            return COUNTED
        case ["dedup", *rest] if rest != ["mode"] and before.dedup.mode is not DedupMode.ENFORCE:
            return ALONG.format(path="dedup.mode")
        case ["recover", *rest] if rest != ["within"] and not before.recover.within:
            return ALONG.format(path="recover.within")
        case ["token", "retry_unauthorized"] if not before.token.inject:
            return ALONG.format(path="token.inject")
        case _:
            return ""


def _named(path: str, sides: _Sides) -> str:
    """The path that changed: of the policy, else of the caller's entry."""
    field = path.removeprefix("headers.")
    if field not in {"subtenant", "subtenant_choices"}:
        return path
    is_the_policys = getattr(sides.before.headers, field) != getattr(sides.after.headers, field)
    return path if is_the_policys else f"caller.{field}"


def _told(path: str, sentence: Sentence, old: Any, new: Any, sides: _Sides) -> Iterator[Change]:  # noqa: ANN401 - a value of the model
    sentence = SENTENCES.get(path, sentence)
    voided = VOIDED if sides.keeps_answers else ""
    match sentence:
        case Listed() if isinstance(old, dict):
            yield from _of_mapping(path, sentence, old, new, voided)
        case Listed():
            for one in (*sorted(new - old), *sorted(old - new)):
                after = voided if _is_asked(path, one, sentence) else ""
                is_new = one in new
                says = sentence.gained if is_new else sentence.lost
                yield entry_change(path, says, old=None if is_new else one, new=one if is_new else None, after=after)
        case Chosen(says, voids):
            was, becomes = written(old), written(new)
            longest_s = max(_limits(sides.after.dedup).values(), default=0.0)
            said = NOT_KEPT if becomes == DedupMode.ENFORCE and not longest_s else says[becomes]
            said = said.format(longest=write_duration(longest_s))
            yield Change(path=path, old=was, new=becomes, says=said + (voided if voids else ""))
        case said_of:
            was, becomes = written(old), written(new)
            grew = isinstance(old, float) and old < new
            tail = voided if said_of.voids else said_of.more if grew else said_of.less
            yield Change(path=path, old=was, new=becomes, says=said_of.says.format(old=was, new=becomes) + tail)


def _of_mapping(
    path: str, sentence: Listed, old: Mapping[str, Any], new: Mapping[str, Any], voided: str
) -> Iterator[Change]:
    is_secret = path == "headers.set"
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        was = written(old[name]) if name in old and not is_secret else None
        becomes = written(new[name]) if name in new and not is_secret else None
        says = sentence.gained if name not in old else sentence.lost if name not in new else sentence.other
        after = voided if _is_asked(path, name, sentence) else ""
        yield entry_change(f"{path}.{name}", says, old=was, new=becomes, after=after)


def _is_asked(path: str, entry: str, sentence: Listed) -> bool:
    """Whether it is a part of every question, as a header is that may change the answer."""
    return sentence.voids or (path in _HEADERS and entry.startswith(_ANSWERING))
