"""cluster.yaml, the RayJob, the lock file and jobs/: Ray's own schema, consistent versions, no open port."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from ray.autoscaler._private import util

from bob.commands import estimate
from bob.core.memory import CARDS
from bob.paper import experiments
from bob.store import Store
from tests.paths import ROOT

SET = "CHANGE-ME"
INSTANCES = {"g4dn": "T4", "g5": "A10G", "g6": "L4", "g6e": "L40S", "p4d": "A100-40", "p4de": "A100-80", "p5": "H100"}
"""AWS's families of instances -> their GPU."""
PRODUCTS = {"NVIDIA-L4": "L4", "NVIDIA-L40S": "L40S", "NVIDIA-A10G": "A10G", "Tesla-T4": "T4"}
"""Values of the label nvidia.com/gpu.product -> the GPU."""


def lines(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def walk(node: Any, name: str = "") -> list[tuple[str, Any]]:
    """Every (key, scalar)."""
    if isinstance(node, dict):
        return [found for key, held in node.items() for found in walk(held, key)]
    if isinstance(node, list):
        return [found for held in node for found in walk(held, name)]
    return [(name, node)]


@pytest.fixture(scope="module")
def cluster() -> Any:
    return loaded("cluster.yaml")


@pytest.fixture(scope="module")
def rayjob() -> Any:
    return loaded("jobs/kuberay.yaml")


# -- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/kuberay.yaml"])
def test_what_a_user_must_set_is_named_in_one_comment(name: str):
    comment = []
    for line in lines(name):
        if not line.startswith("#"):
            break
        comment.append(line)
    words = set(re.findall(r"\w+", "\n".join(comment)))
    wanted = {key for key, held in walk(loaded(name)) if isinstance(held, str) and SET in held}
    assert wanted
    assert wanted <= words


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/kuberay.yaml", "jobs/Dockerfile"])
def test_no_key_and_no_open_door(name: str):
    text = "\n".join(line for line in lines(name) if not line.lstrip().startswith("#"))
    assert "0.0.0.0" not in text
    assert not re.search(r"(?i)secret|password|_key|AKIA", text)


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/Dockerfile"])
def test_images_have_the_ray_of_the_lock(name: str):
    assert f"rayproject/ray:{pins()['ray']}-py311-gpu" in "\n".join(lines(name))


# -- cluster.yaml -------------------------------------------------------------------------------


def test_the_launcher_takes_it(cluster: Any):
    whole = util.prepare_config(copy.deepcopy(cluster))
    util.validate_config(whole)


@pytest.mark.parametrize(("where", "key"), [((), "max_worker"), (("docker",), "imag"), (("head",), "spot")])
def test_the_launcher_would_have_refused_a_slip(cluster: Any, where: tuple[str, ...], key: str):
    wrong = copy.deepcopy(cluster)
    place = wrong["available_node_types"]["head"] if where == ("head",) else wrong[where[0]] if where else wrong
    place[key] = 1
    with pytest.raises(Exception, match=key):
        util.validate_config(util.prepare_config(wrong))


def test_only_those_with_the_token_get_in_and_by_a_tunnel(cluster: Any):
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = next(command for command in cluster[commands] if "ray start" in command)
        assert start.startswith("export RAY_AUTH_MODE=token")
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    # What provider.security_group asks for, Ray adds to its default: port 22 open to all.
    assert "security_group" not in cluster["provider"]
    for kind in cluster["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == [SET]


def test_drivers_are_alone_on_a_head_that_is_never_taken_away(cluster: Any):
    kinds = cluster["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    spot = {name for name, kind in kinds.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert spot == {"gpu_spot", "gpu_big"}
    assert all(kind["min_workers"] == 0 for name, kind in kinds.items() if name != "head")
    assert all("GPU" in kinds[name]["resources"] for name in spot)


def test_the_locked_versions_are_installed(cluster: Any):
    mounted = {there: here for there, here in cluster["file_mounts"].items() if here == "requirements.lock"}
    assert [command for command in cluster["setup_commands"] if f"-r {next(iter(mounted))}" in command]


# -- KubeRay ------------------------------------------------------------------------------------


def test_the_rayjob_is_one(rayjob: Any):
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    spec = rayjob["spec"]["rayClusterSpec"]
    assert spec["rayVersion"] == pins()["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == SET
        [container] = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    assert {group["groupName"]: group["minReplicas"] for group in groups[1:]} == {"cpu": 0, "gpu": 0}


def test_its_entrypoint_is_in_the_image(rayjob: Any):
    _, script, *_ = rayjob["spec"]["entrypoint"].split()
    folder = "/home/ray/bob/"
    assert script.startswith(folder)
    assert (ROOT / script.removeprefix(folder)).is_file()
    copied = [line.split()[-2:] for line in lines("jobs/Dockerfile") if line.startswith("COPY")]
    assert ["jobs", f"{folder}jobs"] in copied
    assert all((ROOT / here).exists() for here, _ in copied)


def mps_of_cluster() -> tuple[str, dict[str, str], list[str]]:
    """Command that starts MPS, its variables, and all commands of a worker node in order."""
    commands = loaded("cluster.yaml")["worker_start_ray_commands"]
    command = next(command for command in commands if "nvidia-cuda-mps-control" in command)
    start = next(command for command in commands if "ray start" in command)
    assert commands.index(command) < commands.index(start)
    return command, dict(re.findall(r"(CUDA_MPS_\w+)=(\S+?)[; ]", command)), [start]


def mps_of_rayjob() -> tuple[str, dict[str, str], list[str]]:
    """The same; there the processes have their container's variables."""
    groups = loaded("jobs/kuberay.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    [container] = next(group for group in groups if group["groupName"] == "gpu")["template"]["spec"]["containers"]
    variables = {pair["name"]: pair["value"] for pair in container["env"]}
    command = container["lifecycle"]["postStart"]["exec"]["command"][-1]
    return command, variables, [f"{name}={value}" for name, value in variables.items()]


@pytest.mark.parametrize("mps", [mps_of_cluster, mps_of_rayjob], ids=["cluster.yaml", "kuberay.yaml"])
def test_nodes_with_gpus_start_mps_where_rays_processes_look_for_it(mps: Any):
    """Without GPUs, or an MPS that does not start, the node starts all the same, and processes take turns."""
    command, variables, environment = mps()
    assert variables.keys() == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
    assert "nvidia-cuda-mps-control -d || true" in command
    assert all(name in command or folder in command for name, folder in variables.items())
    pipe = variables["CUDA_MPS_PIPE_DIRECTORY"]
    assert any(f"CUDA_MPS_PIPE_DIRECTORY={pipe}" in found for found in environment)


# -- memory -------------------------------------------------------------------------------------


def gpus_of_cluster() -> set[str]:
    kinds = loaded("cluster.yaml")["available_node_types"].values()
    types = {kind["node_config"]["InstanceType"] for kind in kinds if "GPU" in kind["resources"]}
    return {INSTANCES[kind.partition(".")[0]] for kind in types}


def gpus_of_rayjob() -> set[str]:
    groups = loaded("jobs/kuberay.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pods = [group["template"]["spec"] for group in groups]
    return {
        PRODUCTS[pod["nodeSelector"]["nvidia.com/gpu.product"]]
        for pod in pods
        if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
    }


def rows_of_table1() -> list[Any]:
    """Each method, checkpoint and backbone of Table 1 on the data set with most classes, with default settings."""
    return [run for run in experiments.load("table1", (0,)) if (run.dataset, run.shots) == ("cub", 5)]


@pytest.mark.parametrize("gpus", [gpus_of_cluster, gpus_of_rayjob], ids=["cluster.yaml", "kuberay.yaml"])
def test_every_step_of_table_1_fits_every_gpu_that_it_may_land_on(gpus: Any, tmp_path: Path, monkeypatch: Any):
    """By default a step takes any node with a GPU, so all of them have to be large enough."""
    monkeypatch.delenv("BOB_DATA", raising=False)
    assert gpus()
    for gpu in gpus():
        cluster = estimate.Cluster(count=1, device=gpu)
        made = estimate.make(rows_of_table1(), Store(str(tmp_path / "none")), cluster=cluster, rates={})
        assert {need.step for need in made.needs} == {"caption", "finetune", "generate", "classify"}
        assert {need.model for need in made.needs} >= {"qwen_vl:7b", "sd15", "sd21", "clip_vit_b16", "mae_vit_b16"}
        assert all(need.bytes <= 0.9 * CARDS[gpu].bytes for need in made.needs)


def test_a_gpu_that_is_too_small_for_a_step_would_be_noticed(tmp_path: Path, monkeypatch: Any):
    monkeypatch.delenv("BOB_DATA", raising=False)
    cluster = estimate.Cluster(count=1, device=INSTANCES["g4dn"])
    with pytest.raises(ValueError, match="step caption with qwen_vl:7b does not fit on a T4"):
        estimate.make(rows_of_table1(), Store(str(tmp_path / "none")), cluster=cluster, rates={})


@pytest.mark.parametrize(("name", "gpu"), [("cluster.yaml", "L4"), ("jobs/kuberay.yaml", "L4")])
def test_the_memory_of_the_gpu_is_said(name: str, gpu: str):
    assert re.search(rf"{gpu} with 24 GB", "\n".join(lines(name)))


# -- requirements.lock --------------------------------------------------------------------------


def pins() -> dict[str, str]:
    return dict(line.split("==") for line in lines("requirements.lock") if not line.startswith("#"))


def test_the_lock_fits_the_bounds_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = pins()
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(Version(locked[requirement.name])), requirement
    assert locked["ray"] == ray.__version__


# -- jobs/ --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_a_job_is_a_manual_and_a_call(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    manual, _, code = text.partition('"""\n')
    for heading in ("Cluster:", "Laptop:", "Reads:", "Writes:", "Resume:", "Cost:", "Exit:"):
        assert heading in manual
    assert f"python jobs/{path.name}" in manual
    assert len(code.strip().splitlines()) <= 8
