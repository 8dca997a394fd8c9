"""A Dockerfile read, and its stages made in a plain directory: what this one says, and no more than that.

Rules
- Every stage stands at the same path while it is made, for scripts name their interpreter by its whole path; when the
  next one begins, it is moved aside.
- Paths from the root are mapped into that directory as text. A command that still names one is refused: it would be
  carried out on this machine.
- A base is a directory with what a Python image brings and ours must not keep; `python` is this machine's.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.running import kept_environment

SCRATCH: Final = "scratch"
_CONTINUED: Final = re.compile(r"\\\n")
_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
_FROM_ROOT: Final = re.compile(r"(?<![\w./*$\\-])/(?=[a-z])")
_OF_THIS_MACHINE: Final = re.compile(
    r"(?<![\w.])/(usr|opt|etc|bin|var|root|home|tmp)\b|\$\{?\w+\}?/"
)  # $x may be empty
_OF_THE_BASE: Final = (
    "bin/pip",
    "bin/pip3",
    "bin/pip3.11",
    "bin/wheel",
    "lib/python3.11/os.py",
    "lib/python3.11/ensurepip/__init__.py",
    "lib/python3.11/site-packages/pip/__init__.py",
    "lib/python3.11/site-packages/setuptools/__init__.py",
)
_RUN_S: Final = 600


class Instruction(NamedTuple):
    """One instruction, its continued lines joined."""

    name: str
    value: str


def read(text: str) -> list[Instruction]:
    """Read a Dockerfile's instructions in their order."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in _CONTINUED.sub(" ", kept).splitlines()]
    return [Instruction(name.upper(), value.strip()) for name, _, value in (one.partition(" ") for one in lines if one)]


def exec_form(value: str) -> list[str]:
    """The words of a command that no shell reads. Raises ValueError where one would."""
    words = json.loads(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{value}: expected a list of words")
    return words


def allowed(dockerignore: str) -> Iterator[str]:
    """What the context lets through, of an ignore file that begins with `*`."""
    first, *rest = [line for line in dockerignore.splitlines() if line and not line.startswith("#")]
    if first != "*":
        raise ValueError("expected an allow-list")
    yield from (line.removeprefix("!") for line in rest if line.startswith("!"))


@dataclass(slots=True)
class Stage:
    """One stage: where its files are now, and what it says of how it runs."""

    base: str
    name: str
    root: Path
    env: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)  # the last value of each other instruction
    workdir: str = "/"

    def words(self, instruction: str) -> list[str]:
        """An instruction's words in exec form; those of HEALTHCHECK without its options."""
        value = self.said[instruction]
        return exec_form(value[value.index("CMD") + 3 :] if instruction == "HEALTHCHECK" else value)

    @property
    def command(self) -> list[str]:
        """What is started where nobody says otherwise."""
        return self.words("ENTRYPOINT") + self.words("CMD")

    def expanded(self, value: str) -> str:
        known = {**self.arguments, **self.env}
        return _VARIABLE.sub(lambda match: known.get(match[1], ""), value)

    def mapped(self, text: str) -> str:
        """A text whose paths from the root are those of this stage."""
        mapped = _FROM_ROOT.sub(f"{self.root}/", text)
        if _OF_THIS_MACHINE.search(mapped.replace(f"{self.root}/", "")):
            raise ValueError(f"{text}: a path of this machine")
        return mapped

    def at(self, path: str) -> Path:
        """Where a path of this stage is."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")  # noqa: PTH118 - of the stage, not of here

    def environment(self, path: str) -> dict[str, str]:
        """What a process in it is given; `path` stands for the base's own PATH."""
        env = {name: self.mapped(value) for name, value in self.env.items()}
        return {**env, "PATH": env.get("PATH", "$PATH").replace("$PATH", path)}


@dataclass(slots=True)
class Builder:
    """Makes stages in a directory, with this machine's Python, from a context."""

    context: Path
    directory: Path
    python: str
    text: str
    stages: list[Stage] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """Where a stage stands while it is made."""
        return self.directory / "root"

    @property
    def path(self) -> str:
        """What a base has on its PATH: `python`, and the tools of a shell."""
        return f"{self.directory / 'bin'}:/usr/bin:/bin"

    def build(self, target: str) -> Stage:
        """Make what the target needs, and then it; "" is the last one, which remains where it was made."""
        (self.directory / "bin").mkdir(parents=True, exist_ok=True)
        shim = self.directory / "bin" / "python"
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(self.python)} "$@"\n')
        shim.chmod(0o755)
        given: dict[str, str] = {}
        for instructions in self._needed(target, given):
            self._make(instructions, given)
        return self.stages[-1]

    def _needed(self, target: str, given: dict[str, str]) -> list[list[Instruction]]:
        """The stages that the target is made from, in their order, as BuildKit chooses them."""
        stages: list[list[Instruction]] = []
        for instruction in read(self.text):
            if instruction.name == "FROM":
                stages.append([instruction])
            elif stages:
                stages[-1].append(instruction)
            else:
                name, _, default = instruction.value.partition("=")
                given[name] = default
        names = [_stage_name(stage[0]) for stage in stages]
        wanted = {len(stages) - 1 if not target else names.index(target)}
        for index in reversed(range(len(stages))):
            if index in wanted:
                said = " ".join(f"{one.name} {one.value}" for one in stages[index])
                named = {*re.findall(r"--from=(\w+)", said), stages[index][0].value.split()[0]}
                wanted |= {at for at, name in enumerate(names[:index]) if name and name in named}
        return [stages[index] for index in sorted(wanted)]

    def _make(self, instructions: list[Instruction], given: Mapping[str, str]) -> None:
        if self.stages:
            last = self.stages[-1]
            last.root = last.root.rename(self.directory / f"stage-{len(self.stages)}")
        opening, *rest = instructions
        base = _VARIABLE.sub(lambda match: given[match[1]], opening.value.split()[0])
        stage = Stage(base=base, name=_stage_name(opening), root=self.root)
        earlier = next((one for one in self.stages if one.name == base), None)
        if earlier is not None:
            shutil.copytree(earlier.root, self.root, symlinks=True)
            stage.env, stage.workdir = dict(earlier.env), earlier.workdir
        else:
            self.root.mkdir()
            for file in _OF_THE_BASE if base != SCRATCH else ():
                (self.root / "usr/local" / file).parent.mkdir(parents=True, exist_ok=True)
                (self.root / "usr/local" / file).write_text("")
        self.stages.append(stage)
        for instruction in rest:
            self._do(stage, instruction, given)

    def _do(self, stage: Stage, instruction: Instruction, given: Mapping[str, str]) -> None:
        name, value = instruction
        match name:
            case "ARG":
                argument, _, default = value.partition("=")
                stage.arguments[argument] = default or given.get(argument, "")
            case "ENV" | "LABEL":
                pairs = (word.partition("=") for word in shlex.split(value))
                kept = stage.env if name == "ENV" else stage.labels
                for key, _, stated in pairs:
                    kept[key] = stated if "$PATH" in stated else stage.expanded(stated)
            case "WORKDIR":
                stage.workdir = value
                stage.at("").mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(stage, value)
            case "RUN":
                self._run(stage, value)
            case "USER" | "ENTRYPOINT" | "CMD" | "HEALTHCHECK" | "EXPOSE" | "STOPSIGNAL":
                stage.said[name] = value
            case _:
                raise ValueError(f"{name}: an instruction that is not known here")

    def _copy(self, stage: Stage, value: str) -> None:
        words = shlex.split(value)
        origin = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
        *sources, last = [word for word in words if not word.startswith("--")]
        target = stage.at(last)
        if origin is not None:
            found = next(one for one in self.stages if one.name == origin)
            paths = [found.at(source) for source in sources]
        else:
            through = set(allowed((self.context / ".dockerignore").read_text()))
            if not through >= set(sources):
                raise ValueError(f"{value}: not all of it is let through")
            paths = [self.context / source for source in sources]
        for path in paths:
            if path.is_dir():
                ignored = None if origin is not None else shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            else:
                into = target / path.name if last.endswith("/") else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, into)

    def _run(self, stage: Stage, command: str) -> None:
        mapped = stage.mapped(command)
        done = subprocess.run(
            ["/bin/sh", "-ec", mapped],
            cwd=stage.at(""),
            env={**_machine(), **stage.environment(self.path)},
            capture_output=True,
            text=True,
            timeout=_RUN_S,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"RUN {mapped}\n{done.stdout}\n{done.stderr}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _stage_name(opening: Instruction) -> str:
    words = opening.value.split()
    return words[2] if len(words) > 1 else ""


def _machine() -> dict[str, str]:
    """This machine's environment, which says where packages come from, without what is meant for this process."""
    ours = ("VIRTUAL_ENV", "PYTHON*", "PATH", "TMPDIR")
    return {
        name: value for name, value in kept_environment().items() if not any(fnmatch(name, pattern) for pattern in ours)
    }
