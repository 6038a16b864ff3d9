"""Packages that not every installation has: whoever lacks one is told which extra brings it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str, needed_by: str) -> Iterator[None]:
    """A block that imports from the package *name*, which the extra of that name installs.

    Args:
        name: the package, and the extra.
        needed_by: the module of this package that cannot do without.

    Raises:
        ImportError: *name* is not installed; says how to. One that is installed and broken fails as it does.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != name:  # something else is missing, inside of it
            raise
        advice = f"{needed_by} needs the package {name}, the extra counterd[{name}]: pip install {name}"
        raise ImportError(advice, name=name) from error
