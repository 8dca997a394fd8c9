"""One thing that a change of the policy files does, in words."""

from dataclasses import dataclass

from gateway.policy.values import write_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is no longer as it was. Without `old` and `new` where neither may be shown, or there is none."""

    says: str
    path: str = ""
    old: str | None = None
    new: str | None = None


def entry_change(path: str, says: str, *, old: str | None = None, new: str | None = None, after: str = "") -> Change:
    """Say what became of one entry of a list or a mapping."""
    return Change(path=path, old=old, new=new, says=says.format(old=old, new=new) + after)


def written(value: object) -> str:
    """A value as a file would say it."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "none"
        case float():
            return write_duration(value)
        case _:
            return str(value)
