"""Memory of tensors that are gone is used again."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from bob import heap
if sys.argv[1] == "kept":
    heap.keep_freed()
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
