"""Command that prints the installed versions of the core dependencies and of all they need, for a cluster to install.

python .ci/lock.py > requirements.lock
"""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def closure(requirements: list[str]) -> dict[str, str]:
    """Returns name -> version of every package that the requirements need, without local parts such as `+cpu`."""
    versions: dict[str, str] = {}
    todo, visited = [Requirement(text) for text in requirements], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in visited:
            continue
        visited.add((name, *sorted(requirement.extras)))
        package = distribution(name)
        versions[name] = Version(package.version).public
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                todo.append(needed)
    return versions


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("# Made by `python .ci/lock.py > requirements.lock`: what the tests ran on (Linux, x86).")
    for name, version in sorted(closure(project["dependencies"]).items()):
        print(f"{name}=={version}")
