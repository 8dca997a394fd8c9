"""Policy files: read, check, report everything at once.

Rules
- All problems of all files are found before anything is said: nobody should mend one line to hear of the next.
- A problem names file, line and path, what was found and what is expected.
- What is checked is what was read at one moment: a directory that changes meanwhile is read again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap

from gateway.policy.callers import ANONYMOUS, Caller, CallersFile, Issuer
from gateway.policy.documents import PolicyFilesError, Problem, Refusal, Source, read_document
from gateway.policy.effects import effects
from gateway.policy.match import Route, Table, Tie, decide
from gateway.policy.mistakes import merged, problems_of
from gateway.policy.model import Policy
from gateway.policy.values import ANY

SUFFIXES: Final = (".yaml", ".yml")
_MAX_BYTES: Final = 524_288  # a ConfigMap holds a megabyte
_READINGS: Final = 5  # whoever writes without end is not waited for


@dataclass(frozen=True, slots=True)
class Files:
    """What stood in the policy files of a directory at one moment, by name, and which could not be read."""

    directory: Path
    contents: Mapping[str, bytes]
    problems: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents, hexadecimal: the same wherever the same files stand."""
        whole = hashlib.sha256()
        for name, content in sorted(self.contents.items()):
            for part in (name.encode("utf-8", "surrogateescape"), content):
                whole.update(len(part).to_bytes(8, "big") + part)
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that a directory of policy files says, checked and decided; `digest` is that of the files."""

    policies: tuple[Policy, ...]
    callers: Mapping[str, Caller]
    table: Table
    sources: Mapping[str, Source] = field(repr=False)
    caller_sources: Mapping[str, Source] = field(repr=False)
    digest: str
    issuers: Mapping[str, Issuer] = field(default_factory=dict)

    @property
    def subtenants(self) -> frozenset[str]:
        """Every subtenant that a file names, for a caller or in a policy."""
        entries = [caller.entry for caller in self.callers.values()]
        named = {entry.subtenant for entry in entries if entry.subtenant is not None}
        named |= {policy.headers.subtenant for policy in self.policies} - {"from-caller", "none"}
        chosen = (
            *(entry.subtenant_choices for entry in entries),
            *(p.headers.subtenant_choices for p in self.policies),
        )
        return frozenset(named.union(*chosen))

    @property
    def recovers(self) -> bool:
        """Whether any policy has what was cut looked up."""
        return any(policy.recover.within for policy in self.policies)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is valid and yet not what its author may think."""
        return tuple(
            f"{self.sources[policy.name].place(*path)}: {'.'.join(path)}: {value} {says}"
            for policy in self.policies
            for path, value, says in effects(policy)
        )


def load(directory: Path) -> PolicySet:
    """Read and check a directory of policy files. Raises PolicyFilesError with all problems there are."""
    return parse(read(directory))


def read(directory: Path) -> Files:
    """Return what stands in a directory at one moment.

    A ConfigMap is replaced by swapping one link, behind which all files are others: read in between, some would be the
    old ones and some the new.
    """
    files = _read(directory)
    for _ in range(_READINGS):
        again = _read(directory)
        if again == files:
            break
        files = again
    return files


def parse(files: Files) -> PolicySet:
    """Check what was read. Raises PolicyFilesError with all problems there are."""
    found = _Found(list(files.problems))
    for name, content in files.contents.items():
        found.add(files.directory / name, content)
    # What holds across files is judged only when each file is in order: one mistake, one problem.
    table, ties = decide(found.policies.values(), found.callers.values())
    problems = (
        found.problems or _across(files.directory, found) or [_tied(tie, found) for tie in ties] or _idle(table, found)
    )
    if problems:
        raise PolicyFilesError(merged(problems), Refusal.UNREADABLE if files.problems else Refusal.INVALID)
    return PolicySet(
        tuple(found.policies.values()),
        MappingProxyType(found.callers),
        table,
        MappingProxyType(found.sources),
        MappingProxyType(found.caller_sources),
        files.digest,
        MappingProxyType(found.issuers),
    )


def _read(directory: Path) -> Files:
    contents, problems = {}, []
    try:
        for path in sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES):
            if path.name.startswith("."):
                continue  # an editor's, or half of something
            found = _unusable(path) or _content(path)
            if isinstance(found, bytes):
                contents[path.name] = found
            else:
                problems.append(Problem(str(path), 0, "", *found))
    except OSError:
        place, expected = str(directory.absolute()), "a directory of policy files (GATEWAY_POLICIES)"
        problems.append(Problem(place, 0, "", "no directory", expected))
    return Files(directory, contents, tuple(problems))


def _unusable(path: Path) -> tuple[str, str] | None:
    """What is wrong with an entry of the directory before it is read, and what is expected."""
    if not path.name.isprintable():
        return "a name that cannot be printed", "letters, digits, - and _"
    if path.suffix not in SUFFIXES:
        return f"the ending {path.suffix}", f"{SUFFIXES[0]}, or another one for what is no policy file"
    if not path.is_file():
        return "a directory" if path.is_dir() else "no regular file, or a link that leads to none", "a regular file"
    return None


def _content(path: Path) -> bytes | tuple[str, str]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        return error.strerror or "no access", "a readable file"
    return content if len(content) <= _MAX_BYTES else (f"more than {_MAX_BYTES:,} bytes", "fewer")


@dataclass(slots=True)
class _Found:
    """What the files say, and what is wrong with them, while they are being read."""

    problems: list[Problem]
    policies: dict[str, Policy] = field(default_factory=dict)
    callers: dict[str, Caller] = field(default_factory=dict)
    issuers: dict[str, Issuer] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    caller_sources: dict[str, Source] = field(default_factory=dict)
    issuer_sources: dict[str, Source] = field(default_factory=dict)

    def add(self, path: Path, content: bytes) -> None:
        document, source, broken = read_document(str(path), content)
        if broken:
            self.problems += broken
        elif "callers" in document and "match" not in document:
            self._add_callers(document, source)
        else:
            self._add_policy(document, path.stem, source)

    def _add_policy(self, document: CommentedMap, name: str, source: Source) -> None:
        if "callers" in document:
            self.problems.append(source.problem("both `match:` and `callers:`", "one kind in a file", "callers"))
            return
        if "name" in document:
            known = ", ".join(field for field in Policy.model_fields if field != "name")
            self.problems.append(source.problem("an unknown field", f"one of: {known}", "name"))
        try:
            policy = Policy.model_validate({**document, "name": name})
        except ValidationError as error:
            self.problems += problems_of(Policy, error, document, source)
            return
        if name in self.policies:
            self.problems.append(source.problem(f"a second policy named {name}", "another file name"))
        self.policies[name] = policy
        self.sources[name] = source

    def _add_callers(self, document: CommentedMap, source: Source) -> None:
        try:
            stated = CallersFile.model_validate(document)
        except ValidationError as error:
            self.problems += problems_of(CallersFile, error, document, source)
            return
        for name, issuer in stated.issuers.items():
            if name in self.issuers:
                self.problems.append(source.problem("a second entry", "each issuer once", "issuers", name))
            self.issuers[name] = issuer
            self.issuer_sources[name] = source
        for name, entry in stated.callers.items():
            if name in self.callers:
                self.problems.append(source.problem("a second entry", "each caller once", "callers", name))
            self.callers[name] = Caller(name=name, entry=entry)
            self.caller_sources[name] = source


def _across(directory: Path, found: _Found) -> list[Problem]:
    problems = []
    if not found.policies:
        problems.append(Problem(str(directory), 0, "", "no policy file", "at least one file with `match:`"))
    if not found.callers:
        problems.append(Problem(str(directory), 0, "", "no caller", "a file with `callers:`"))
    problems += _credentials(found)
    problems += _subjects(found)
    declared = ", ".join(sorted(found.callers)) or "none is declared"
    for name, policy in found.policies.items():
        source = found.sources[name]
        if not policy.match.operations and not policy.match.forward:
            problems.append(source.problem("no request", "operations, forward or both", "match"))
        problems += [
            source.problem(f"'{caller}'", f"a declared caller: {declared}", "match", "callers", index)
            for index, caller in enumerate(policy.match.callers)
            if caller != ANY and caller not in found.callers
        ]
    return problems


def _credentials(found: _Found) -> list[Problem]:
    """By what a caller is known: each of it names one caller."""
    problems = []
    owners: dict[tuple[str, str], str] = {}
    for name, caller in found.callers.items():
        source, entry = found.caller_sources[name], caller.entry
        if name != ANONYMOUS and not entry.is_known:
            expected = "the SHA-256 of a secret, or certificates, or subjects: only 'anonymous' has none"
            problems.append(source.problem("nothing", expected, "callers", name, "secret_sha256"))
        for what, known_by, values in (
            ("secret", "secret_sha256", entry.digests),
            ("certificate", "certificates", entry.certificates),
            ("subject", "subjects", entry.subjects),
        ):
            place = ("callers", name, known_by)
            if name == ANONYMOUS and values:
                problems.append(source.problem(f"a {what}", "none for who is anonymous", *place))
            for value in values:
                if (owner := owners.setdefault((what, value), name)) != name:
                    expected = f"another {what} than that of '{owner}': a {what} names one caller"
                    problems.append(source.problem(f"a {what} that is taken", expected, *place))
    return problems


def _subjects(found: _Found) -> list[Problem]:
    """Whoever vouches for a caller is declared, and no two of them have one name."""
    declared = ", ".join(sorted(found.issuers)) or "none is declared"
    problems = [
        found.caller_sources[name].problem(
            f"the issuer '{issuer}'", f"a declared issuer: {declared}", "callers", name, "subjects", index
        )
        for name, caller in found.callers.items()
        for index, issuer in enumerate(subject.partition("/")[0] for subject in caller.entry.subjects)
        if issuer not in found.issuers
    ]
    names: dict[str, str] = {}
    for name, issuer in found.issuers.items():
        if (first := names.setdefault(issuer.issuer, name)) != name:
            source, expected = found.issuer_sources[name], f"another `iss` than that of '{first}'"
            problems.append(source.problem("one that is taken", expected, "issuers", name, "issuer"))
    return problems


def _idle(table: Table, found: _Found) -> list[Problem]:
    """Routes that no caller may use: a field without effect is a mistake."""
    idle = {route for route, policies in table.routes if not policies}
    return [
        found.sources[name].problem(
            f"'{text}', which no caller may use",
            "a caller whose operations hold 'forwarded' or '*'",
            *("match", "forward", index),
        )
        for name, policy in found.policies.items()
        for index, text in enumerate(policy.match.forward)
        if Route.parse(text) in idle
    ]


def _tied(tie: Tie, found: _Found) -> Problem:
    return found.sources[tie.second.name].problem(
        f"the same precedence as {found.sources[tie.first.name].place('match')} for {tie.what} by {tie.caller}",
        "one policy that is more specific: name the caller or the operation",
        "match",
    )
