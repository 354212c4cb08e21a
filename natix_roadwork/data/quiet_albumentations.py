"""albumentations as `A`, imported without a request to the network.

While it is imported, albumentations asks a package index for a newer version, unless `NO_ALBUMENTATIONS_UPDATE` is 1 in
the environment; there is no other switch. The variable is therefore set for the duration of the import, here and
nowhere else, and is afterwards what it was before. Other modules take `A` from here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


SWITCH = "NO_ALBUMENTATIONS_UPDATE"


@contextmanager
def _no_version_check() -> Iterator[None]:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


with _no_version_check():
    import albumentations as A


__all__ = ["A"]
