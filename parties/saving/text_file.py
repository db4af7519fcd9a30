"""A text file, written whole or not at all."""

from pathlib import Path

from parties.data.on_disk import replace_file
from parties.errors import SaveError


def write_whole(file: Path, text: str) -> None:
    """Write the file, in the place of an older one, and make its folder.

    Raises:
        SaveError: it cannot be written; an older one stays as it was.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, text.encode())
    except (OSError, ValueError) as error:
        seen = getattr(error, "strerror", None) or str(error)
        raise SaveError(field=f"file {str(file)!r}", seen=seen, wanted="a file that can be written") from error
