"""How a process keeps the memory of tensors that are gone, on a CPU."""

import contextlib
import ctypes

__all__ = ["keep_freed"]

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
