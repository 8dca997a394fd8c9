"""The last good policy files, kept beside: for a start that finds others that cannot be used.

Rules
- One file, replaced in one step: whoever reads it finds the earlier set or the later one.
- It is taken only if its digest is that of what it holds: half a file is none.
- Only its owner may read it: a policy may set headers whose values are nobody else's business.
"""

import json
from pathlib import Path
from typing import Final

from gateway.policy.files import Files

_NAME: Final = "policies.json"


def keep(place: Path, files: Files) -> None:
    """Keep good files in the directory `place`. Raises OSError."""
    new = place / f".{_NAME}.new"
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    contents = {name: content.decode() for name, content in files.contents.items()}
    new.write_text(json.dumps({"digest": files.digest, "files": contents}), encoding="utf-8")
    new.replace(place / _NAME)


def kept(place: Path, directory: Path) -> Files | None:
    """Return what was kept, as if it stood in `directory`; None where nothing was, or it is not whole."""
    try:
        document = json.loads((place / _NAME).read_text(encoding="utf-8"))
        files = Files(directory, {str(name): str(text).encode() for name, text in document["files"].items()})
        return files if files.digest == document["digest"] else None
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
