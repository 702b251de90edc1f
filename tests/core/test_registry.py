"""Folders as registries: listing imports nothing, an unknown name gets a suggestion, entry points add names."""

import ast
import importlib
import importlib.metadata
import sys
from pathlib import Path

import pytest

from bob.core import registry

ENTRIES = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of animals: a good file, one that breaks when imported, and a private one."""
    folder = tmp_path / "zoo_of_test_registry"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "zebra.py").write_text("animal = 'stripes'\n")
    (folder / "ape.py").write_text("raise RuntimeError('imported')\n")
    (folder / "_keeper.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.KINDS, "animal", folder.name)
    return folder


@pytest.mark.usefixtures("zoo")
def test_names_are_sorted_public_and_not_imported() -> None:
    assert registry.names("animal") == ("ape", "zebra")
    assert "zoo_of_test_registry.zebra" not in sys.modules


@pytest.mark.usefixtures("zoo")
def test_load_gives_the_object_of_the_folders_name() -> None:
    assert registry.load("animal", "zebra") == "stripes"


@pytest.mark.usefixtures("zoo")
def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^unknown animal 'zebr'; known: ape, zebra\. Did you mean 'zebra'\?$"):
        registry.load("animal", "zebr")
    with pytest.raises(ValueError, match=r"^unknown animal 'xxxxxxx'; known: ape, zebra\.$"):
        registry.load("animal", "xxxxxxx")


@pytest.mark.parametrize("name", ["", "_keeper", "..", "zebra.animal", "Zebra"])
@pytest.mark.usefixtures("zoo")
def test_what_is_no_public_file_is_unknown(name: str) -> None:
    with pytest.raises(ValueError, match="unknown animal"):
        registry.load("animal", name)


@pytest.mark.usefixtures("zoo")
def test_another_package_adds_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("yak", "zoo_of_test_registry.zebra:animal", "beyond_objects.animals")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda *, group: [point] if group == "beyond_objects.animals" else []
    )
    assert registry.names("animal") == ("ape", "yak", "zebra")
    assert registry.load("animal", "yak") == "stripes"


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_file_holds_what_its_folder_is_named_for(kind: str, name: str) -> None:
    (folder,) = importlib.import_module(registry.KINDS[kind]).__path__
    defined: set[str] = set()
    for node in ast.parse((Path(folder) / f"{name}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert kind in defined, f"{registry.KINDS[kind]}.{name} must define `{kind}`"
