"""Shared by tests that call the command line: a small data set, the smallest run, a listing of a folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bob import cli

SMALLEST = (
    *("--shots", "1", "--val", "1", "--sweep.lrs", "1e-3", "--sweep.sweep-epochs", "1", "--sweep.final-epochs", "1"),
    *("--finetune.epochs", "1", "--draw.per-class", "1", "--draw.steps", "2", "--sweep.lambdas", "0.5"),
)
"""Flags of a run that takes seconds and means nothing."""


def photos(root: Path, *, classes: Sequence[str] = ("heron", "teal"), count: int = 3) -> Path:
    """A data set of noise in class sub-folders; three pictures are the fewest that one shot needs."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for n in range(count):
            pixels = np.random.default_rng([k, n]).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{n}.png")
    return root


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """All that lies below a folder -> its size and when it was last written; of folders only that they are there."""
    found = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
    return {
        name: (0, 0) if (root / name).is_dir() else (held.st_size, held.st_mtime_ns) for name, held in found.items()
    }


class Bob:
    """The command line, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """`bob run --inline ...` -> exit code, stdout, stderr."""
        self._monkeypatch.setattr("sys.argv", ["bob", "run", "--inline", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *self._capsys.readouterr()

    def refuses(self, *arguments: str | Path) -> str:
        """The one sentence with which it ends."""
        code, out, err = self.run(*arguments)
        assert code == 2, (out, err)
        assert err.startswith("bob: ")
        assert err.count("\n") == 1, f"wanted one line, got {err!r}"
        return err
