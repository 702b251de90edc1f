"""glibc malloc tuning: freed tensor memory is reused, and garbage collection pauses only during imports."""

import gc
import platform
import subprocess
import sys

import pytest

from bob.core import malloc

FAULTS = """
import resource, sys
import numpy as np
from bob.core import malloc
if sys.argv[1] == "kept":
    malloc.keep_freed()
for k in range(40):
    np.ones(20 << 20, np.uint8)
    if k == 9:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    environment = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc's own, and no other by and by
    done = subprocess.run([sys.executable, "-c", FAULTS, how], env=environment, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")
def test_pages_are_cleared_once():
    assert faults("kept") * 10 < faults("given back")


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_looked_for_as_before_once_imports_have_ended_or_failed(enabled: bool):
    try:
        (gc.enable if enabled else gc.disable)()
        with malloc.importing(), malloc.importing():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError), malloc.importing():
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
