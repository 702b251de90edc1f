"""Cost of imports: nothing for `import bob`, no torch for planning, never the network."""

import subprocess
import sys

from tests.paths import ROOT

MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "bob").rglob("*.py")
)
HEAVY = ("ray", "torch", "torchvision", "diffusers", "transformers", "peft", "timm", "matplotlib", "scipy")
LIGHT = [
    module
    for module in MODULES
    if module
    in {
        "bob.core.types",
        "bob.store.schema",
        "bob.core.seeds",
        "bob.core.registry",
        "bob.core.settings",
        "bob.store",
        "bob.core.prompts",
    }
    or module.startswith(("bob.datasets", "bob.methods"))
]

GUARD = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit(f"the network was used: {args[1:] or args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_the_package_imports_nothing() -> None:
    assert _run("import sys; old = set(sys.modules); import bob; print(*sorted(set(sys.modules) - old))") == "bob"


def test_planning_imports_nothing_heavy() -> None:
    loaded = _run(f"import importlib, sys\nfor m in {LIGHT}: importlib.import_module(m)\nprint(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_no_import_uses_the_network() -> None:
    _run(f"{GUARD}\nimport importlib\nfor m in {MODULES}: importlib.import_module(m)")
