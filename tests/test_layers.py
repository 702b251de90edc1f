"""The architecture, read from imports: downwards only, and heavy libraries only where they belong."""

import ast
import graphlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.paths import ROOT

FLOORS = (
    ("bob.core",),
    ("bob.methods", "bob.store"),
    ("bob.datasets", "bob.captioners", "bob.backbones", "bob.diffusion"),
    ("bob.classifier", "bob.skyworld"),
    ("bob.steps",),
    ("bob.paper", "bob.pipeline", "bob.cluster"),
    ("bob.commands",),
    ("bob.cli",),
    ("jobs",),
)
"""From the ground up. A package imports from the floors below its own, and from others of its own without a circle."""

TOOLS = "bob.skyworld"
"""Makes the weights: imported by nothing."""

REGISTRIES = ("bob.methods", "bob.datasets", "bob.captioners", "bob.backbones")
"""Their files know nothing of one another, so that one can be added, copied or taken out."""

ONLY_IN = {
    "ray": ("bob.cluster",),
    "tyro": ("bob.commands", "bob.cli"),
    "matplotlib": ("bob.paper.contact_sheet", "bob.commands.report", "bob.paper.figures"),
}
NOT_IN = {
    "bob.methods": {"torch", "torchvision", "diffusers", "transformers", "peft", "timm"},
    "bob.datasets": {"torch", "torchvision"},
}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(file): file for folder in ("bob", "jobs") for file in sorted((ROOT / folder).rglob("*.py"))}
every_module = pytest.mark.parametrize("module", FILES)


def _imports(module: str) -> set[str]:
    """Whole names of what a file imports anywhere in it, modules only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relative to itself: write the whole name"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = whole & set(FILES)
            found |= modules | ({node.module or ""} if whole - modules else set())
    return found


def _below(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def _place(module: str) -> tuple[int, str]:
    for floor, packages in enumerate(FLOORS):
        for package in packages:
            if _below(module, package):
                return floor, package
    pytest.fail(f"{module} has no floor: place it in FLOORS of {Path(__file__).name}")


def _is_ours(module: str) -> bool:
    return module != "bob" and (_below(module, "bob") or _below(module, "jobs"))


def _circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """A way from a node back to itself; empty if there is none."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@every_module
def test_imports_go_downwards(module: str) -> None:
    if not _is_ours(module):
        return
    floor, package = _place(module)
    for imported in filter(_is_ours, _imports(module)):
        below, its_package = _place(imported)
        assert below <= floor, f"{module} (floor {floor}) imports {imported} (floor {below})"
        assert its_package != TOOLS or package == TOOLS, f"{module} imports {imported}, which makes the weights"


def test_packages_of_a_floor_import_each_other_without_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for module in filter(_is_ours, FILES):
        package = _place(module)[1]
        arrows.setdefault(package, set()).update(_place(imported)[1] for imported in filter(_is_ours, _imports(module)))
    assert not _circle({package: found - {package} for package, found in arrows.items()})


def test_modules_import_each_other_without_a_circle() -> None:
    """What a package's `__init__` imports of its own files is the package's face: they may use one another."""
    arrows = {module: {i for i in _imports(module) if _is_ours(i)} for module in filter(_is_ours, FILES)}
    faces = {name for name in arrows if FILES[name].name == "__init__.py"}
    arrows |= {face: {i for i in arrows[face] if not _below(i, face)} for face in faces}
    assert not _circle(arrows)


@pytest.mark.parametrize(
    ("arrows", "circle"),
    [({"a": {"b"}, "b": {"c"}, "c": {"a"}}, True), ({"a": {"b", "c"}, "b": {"c"}}, False)],
)
def test_a_circle_is_found(arrows: Mapping[str, set[str]], circle: bool) -> None:
    assert bool(_circle(arrows)) is circle


@every_module
def test_files_of_a_registry_do_not_import_each_other(module: str) -> None:
    for registry in REGISTRIES:
        if _below(module, registry):
            inside = {name for name in _imports(module) if name != registry and _below(name, registry)}
            public = {name for name in inside if not name.rpartition(".")[2].startswith("_")}
            assert not public, f"{module} imports {sorted(public)}: share through {registry} or a _private file"


@every_module
def test_libraries_stay_where_they_belong(module: str) -> None:
    libraries = {name.partition(".")[0] for name in _imports(module)}
    for library, places in ONLY_IN.items():
        allowed = any(_below(module, place) for place in places)
        assert allowed or library not in libraries, f"{module} imports {library}, which is for {places} only"
    for place, banned in NOT_IN.items():
        if _below(module, place):
            assert not libraries & banned, f"{module} imports {sorted(libraries & banned)}"


def test_the_package_imports_nothing() -> None:
    assert _imports("bob") == set()


def test_every_folder_of_code_is_a_package() -> None:
    """Setuptools leaves out a folder without `__init__.py`."""
    folders = {file.parent for file in FILES.values() if file.is_relative_to(ROOT / "bob")}
    assert not [folder.name for folder in folders if not (folder / "__init__.py").exists()]


@every_module
def test_files_functions_and_signatures_are_small(module: str) -> None:
    text = FILES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 - docstring <= 50, f"{module}.{node.name} is longer than 50 lines"
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            parameters = len(named) + bool(given.vararg) + bool(given.kwarg) - (bool(named) and named[0].arg == "self")
            assert parameters <= 8, f"{module}.{node.name} has {parameters} parameters"


def test_the_packages_root_is_short() -> None:
    """One room a thing: whoever adds an entry here looks first where it belongs."""
    assert len([entry for entry in (ROOT / "bob").iterdir() if entry.name != "__pycache__"]) <= 17
