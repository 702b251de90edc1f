"""Prints the versions of this environment that a cluster is to install: of the core dependencies and all they need.

python .ci/lock.py > requirements.lock
"""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def closure(wanted: list[str]) -> dict[str, str]:
    """Name -> version of all that these requirements bring, without local parts such as `+cpu`."""
    found: dict[str, str] = {}
    todo, seen = [Requirement(text) for text in wanted], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        held = distribution(name)
        found[name] = Version(held.version).public
        for text in held.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                todo.append(needed)
    return found


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("# Made by `python .ci/lock.py > requirements.lock`: what the tests ran on (Linux, x86).")
    for name, version in sorted(closure(project["dependencies"]).items()):
        print(f"{name}=={version}")
