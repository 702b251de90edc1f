"""The architecture, read from the imports: downwards only, and the heavy libraries where they belong."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    (
        *(
            "bob.core.types",
            "bob.store.schema",
            "bob.core.seeds",
            "bob.core.registry",
            "bob.store",
            "bob.core.settings",
            "bob.core.prompts",
        ),
        *(
            "bob.store.lock",
            "bob.store.files",
            "bob.store.parquet",
            "bob.core.step_table",
            "bob.store.weights",
            "bob.core.batching",
            "bob.core.training_state",
        ),
        *(
            "bob.core.budget",
            "bob.classifier.pixel_cache",
            "bob.store.keys",
            "bob.methods._suffixes",
            "bob.commands.unpack",
            "bob.paper.numbers",
        ),
        *("bob.paper.metrics", "bob.store.commit", "bob.core.timing", "bob.core.threads", "bob.core.malloc"),
        *("bob.datasets._skyworld", "bob.datasets._render"),
    ),
    ("bob.datasets", "bob.captioners", "bob.diffusion", "bob.backbones", "bob.classifier.loss"),
    ("bob.store.images",),
    ("bob.methods", "bob.classifier.data", "bob.datasets._split_file"),
    ("bob.classifier.trainer", "bob.paper.layouts", "bob.paper.contact_sheet"),
    ("bob.paper.render", "bob.paper.claims"),
    ("bob.steps.ask",),
    (
        "bob.steps.caption",
        "bob.diffusion.training",
        "bob.diffusion.image_generator",
        "bob.classifier.results",
        "bob.paper.tabulate",
        "bob.paper.table7",
    ),
    ("bob.classifier.embedder", "bob.steps.recognise"),
    ("bob.steps.classify", "bob.steps.embed", "bob.steps.ask_worker", "bob.commands.snapshot"),
    (
        "bob.steps.workers",
        "bob.commands.console",
        "bob.steps.units",
        "bob.pipeline.plan_files",
        "bob.commands.checks",
        "bob.commands.measured_checks",
        "bob.paper.figures",
    ),
    ("bob.pipeline.splits",),
    ("bob.pipeline.walk",),
    ("bob.paper.outputs", "bob.commands.rates", "bob.pipeline", "bob.commands.pace"),
    (
        "bob.paper.experiments",
        "bob.commands.estimate",
        "bob.commands.report",
        "bob.commands.export",
        "bob.commands.status",
        "bob.commands.verify",
        "bob.commands.doctor",
    ),
    ("bob.cluster", "bob.pipeline.outcomes"),
    ("bob.commands.submit", "bob.commands"),
    ("bob.cli",),
    ("jobs",),
)
"""A new module is placed here, and may import what stands in the lines above its own."""

TOOLS = "bob.skyworld"
"""What lies here beside world and render makes the weights: imports up to layer 6, imported by none."""
TOOLS_LAYER = 8

REGISTRIES = ("bob.methods", "bob.datasets", "bob.captioners", "bob.backbones")
"""Their files know nothing of one another, so that one can be added, copied or taken out."""

ONLY_IN = {
    "ray": ("bob.cluster",),
    "tyro": ("bob.commands",),
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
    for layer, places in enumerate(LAYERS):
        for place in places:
            if _below(module, place):
                return layer, place
    if module == TOOLS:
        return 0, module
    if _below(module, TOOLS):
        return TOOLS_LAYER, TOOLS
    pytest.fail(f"{module} has no layer: place it in LAYERS of {Path(__file__).name}")


def _is_ours(module: str) -> bool:
    return module != "bob" and (_below(module, "bob") or _below(module, "jobs"))


@every_module
def test_imports_go_downwards(module: str) -> None:
    if not _is_ours(module):
        return
    layer, place = _place(module)
    for imported in filter(_is_ours, _imports(module)):
        below, its_place = _place(imported)
        if below == layer and (layer == 0 or place == its_place):
            continue  # layer 0 is one vocabulary; a folder is one place
        assert below < layer, f"{module} (layer {layer}) imports {imported} (layer {below})"


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
