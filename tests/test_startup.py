"""Commands that compute nothing start without the libraries that computing takes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEAVY = {
    *("torch", "torchvision", "diffusers", "transformers", "timm", "peft", "ray"),
    *("scipy", "matplotlib", "huggingface_hub"),
}
"""Each takes from a tenth of a second to several seconds to import."""

COMMAND = """
import sys
from bob.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print("\\nLOADED", ended.code or 0, *sys.modules)
"""

ENTRIES = """
import sys
from bob import captioners
from bob.core import registry
for kind in registry.KINDS:
    for name in registry.names(kind):
        registry.load(kind, name)
captioners.revision("qwen_vl:7b")
captioners.revision("qwen_vl:skyworld")
print("LOADED", 0, *sys.modules)
"""


def loaded(code: str, *arguments: str) -> tuple[int, set[str]]:
    """Exit code and imported modules of a command in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-3000:]
    _, exit_code, *modules = process.stdout.splitlines()[-1].split()
    return int(exit_code), set(modules)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store: the plan, the shots and the captions of a run that has come to its first step."""
    folder = tmp_path_factory.mktemp("startup") / "out"
    command = "--inline --upto caption --captioner blind --dataset skyworld --shots 1 --val 1 --out"
    assert loaded(COMMAND, "run", *command.split(), str(folder))[0] == 0
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "run --help",
        "plan --help",
        "rehearse --help",
        "verify --help",
        "export --help",
        "methods",
        "status OUT",
        "verify OUT",
        "plan",
        "plan smoke --out OUT",
        "plan skyworld --out OUT",
        "plan table3 --cluster 8xH100 --out OUT",
        "plan figure5 --cluster 8xH100 --out OUT",
    ],
)
def test_a_command_that_computes_nothing_imports_nothing_heavy(command: str, out: Path) -> None:
    exit_code, modules = loaded(COMMAND, *command.replace("OUT", str(out)).split())
    assert exit_code == 0
    assert not HEAVY & modules


def test_what_is_known_of_an_entry_of_a_registry_needs_nothing_heavy() -> None:
    """Names, titles, sweeps and revisions of every method, data set, captioner and backbone."""
    assert not HEAVY & loaded(ENTRIES)[1]


def test_a_command_that_computes_is_seen_to_import_what_it_needs(tmp_path: Path) -> None:
    """So that the tests above would notice."""
    command = "run --inline --upto caption --captioner blind --dataset skyworld --shots 1 --val 1 --out"
    assert "torch" in loaded(COMMAND, *command.split(), str(tmp_path))[1]
