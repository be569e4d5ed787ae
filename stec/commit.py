"""Which commit of the sources is running, if they are those of a repository (and not installed from a package)."""

import subprocess
from pathlib import Path


def commit(file: str = __file__) -> str:
    """The commit of the repository that keeps this file, with "-dirty" if anything tracked there was changed since; ""
    if none does, or git is not there."""
    here = ["git", "-C", str(Path(file).parent)]
    try:
        subprocess.run([*here, "ls-files", "--error-unmatch", file], capture_output=True, timeout=10, check=True)
        # --exclude: no tags, so that it is always the same few digits.
        asked = [*here, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
