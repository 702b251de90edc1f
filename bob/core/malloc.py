"""Memory tuning for worker processes: glibc malloc's thresholds, and no garbage collection during imports."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

__all__ = ["importing", "keep_freed"]

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT = 256 << 20  # bytes
_LARGEST = 32 << 20  # bytes; the greatest threshold that glibc accepts


def keep_freed() -> None:
    """Makes glibc reuse the memory of freed tensors of up to 32 MB instead of returning it to the kernel.

    The kernel clears each page that it hands out, which takes a sixth of the time of drawing skyworld's images. At most
    256 MB of free memory are kept. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP, _LARGEST)
        library.mallopt(_TRIM, _KEPT)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Disables garbage collection inside the block.

    Modules create hundreds of thousands of objects that stay alive: examining them again and again takes a third of the
    time of importing torch and diffusers.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
