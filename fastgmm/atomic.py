"""Files that are whole or not there: written beside their place, synced, and moved into it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of ``path`` if the block ends without an error.

    Whatever interrupts it, ``path`` holds either what it held before or all that is new. A process
    killed outright can leave a hidden ``.fastgmm.<random>.tmp`` beside it.

    Parameters
    ----------
    path : path-like
        A link is followed; permissions of a file that is there are kept.

    Yields
    ------
    file : binary file
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".fastgmm.{secrets.token_hex(8)}.tmp")
    try:
        # "x" and not tempfile: the file gets the permissions that the umask gives.
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the new name last; not every system can open folders, and the file itself is safe."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
