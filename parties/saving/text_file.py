"""A text file, written whole or not at all."""

import os
from pathlib import Path

from parties.errors import SaveError


def write_whole(file: Path, text: str) -> None:
    """Write the file, in the place of an older one, and make its folder.

    Raises:
        SaveError: it cannot be written; an older one stays as it was.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        os.replace(new, file)
    except OSError as error:
        new.unlink(missing_ok=True)
        seen = error.strerror or type(error).__name__
        raise SaveError(field=f"file {str(file)!r}", seen=seen, wanted="a file that can be written") from error
