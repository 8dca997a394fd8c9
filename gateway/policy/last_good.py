"""The last good policy files, kept beside: for a start that finds others that cannot be used.

Rules
- One file, replaced in one step: whoever reads it finds the earlier set or the later one.
- It is taken only if its digest is that of what it holds: half a file is none.
- A set that is no longer the last good one is worse than none, for it may let in whoever was taken away since. So what
  cannot be replaced is removed.
- Only its owner may read it: a policy may set headers whose values are nobody else's business.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.policy.files import Files

_NAME: Final = "policies.json"
_MAX_BYTES: Final = 16_777_216


def keep(place: Path, files: Files, unique: str) -> None:
    """Keep good files in the directory `place`, or nothing; nobody else uses `unique`. Raises OSError."""
    new = place / f".{_NAME}.{unique}"
    contents = {name: content.decode() for name, content in files.contents.items()}
    try:
        new.touch(mode=0o600)
        new.write_text(json.dumps({"digest": files.digest, "files": contents}), encoding="utf-8")
        new.replace(place / _NAME)
    except OSError:
        for leftover in (new, place / _NAME):
            with suppress(OSError):
                leftover.unlink()
        raise


def kept(place: Path, directory: Path) -> Files | None:
    """Return what was kept, as if it stood in `directory`; None where nothing was, or it is not whole."""
    file = place / _NAME
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return None
        document = json.loads(file.read_text(encoding="utf-8"))
        files = Files(directory, {str(name): str(text).encode() for name, text in document["files"].items()})
        return files if files.digest == document["digest"] else None
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None
