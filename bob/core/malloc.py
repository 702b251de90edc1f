"""What a process does about memory that is free: it keeps it, and does not look for it where there is none."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

__all__ = ["importing", "keep_freed"]

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT = 256 << 20  # bytes
_LARGEST = 32 << 20  # bytes; the most that glibc takes for its threshold


def keep_freed() -> None:
    """Has glibc use the memory of a freed tensor of up to 32 MB again, where it would hand it back to the kernel.

    The kernel clears each page that it gives: without this a sixth of the time of drawing skyworld's images. At most
    256 MB more than is in use are kept. Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP, _LARGEST)
        library.mallopt(_TRIM, _KEPT)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Looks for no garbage meanwhile.

    Modules come with objects by the hundred thousand, which stay: looking through them again and again is a third of
    the time of importing torch and diffusers.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
