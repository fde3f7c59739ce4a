"""deploy/: held against hadolint, pip, KubeRay's fields, Kubernetes', Ray's and Amazon's schemas; a job's upload."""

import copy
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from project_paths import ROOT

from cluster.session import WorkerResources, divide
from explain.__main__ import parse

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
PACKAGES = ("cluster", "distill", "explain", "evaluate")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"malgradcam:{VERSION}"
BIN = Path(sys.executable).parent


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def tracked(*parts: str) -> list[str]:
    words = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *parts]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.rstrip("\0").split("\0")


def put(part: Any, path: tuple[Any, ...], value: object) -> None:
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value


def instructions(name: str) -> list[str]:
    """List what follows an instruction's name in the Dockerfile."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)


def copied() -> list[str]:
    return [source for line in instructions("COPY") for source in line.split()[:-1]]


def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run([BIN / "hadolint", "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_context_is_what_the_dockerfile_copies() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    assert [rule[1:] for rule in rules if rule.startswith("!")] == copied()


def test_the_base_image_has_a_digest_and_packages_have_hashes() -> None:
    base, lock = instructions("ARG")[:2]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert instructions("FROM") == ["${PYTHON_IMAGE}"]
    installs = [step for step in instructions("RUN") if step.startswith("pip install")]
    locked, project = installs
    assert {"--require-hashes", "--only-binary", "requirements/${LOCK}.txt"} <= set(locked.split())
    assert {"--no-deps", "--no-build-isolation"} <= set(project.split())
    assert lock == "LOCK=image"


def test_the_dockerfile_installs_the_project_whole(tmp_path: Path) -> None:
    """Its last RUN step as it is written, on what it copies, without dependencies; then commands, from elsewhere."""
    context, installed = tmp_path / "context", tmp_path / "installed"
    for name in tracked(*copied()):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    step = instructions("RUN")[-1]
    pip = {"PIP_NO_INDEX": "1", "PIP_TARGET": str(installed)}
    environment = os.environ | pip | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", step], cwd=context, env=environment, capture_output=True, check=True)
    assert [name for name in tracked(*PACKAGES) if not (installed / name).is_file()] == []
    for package in PACKAGES:
        words = [sys.executable, "-m", package, "--help"]
        environment = os.environ | {"PYTHONPATH": str(installed)}
        subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True)


def test_a_job_uploads_the_code_and_little_else(tmp_path: Path) -> None:
    """As Ray packs a working folder in which there was work: runs, environments, a tracking store, caches."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    folder, package = tmp_path / "project", tmp_path / "package.zip"
    left = ("runs/maps/0.parquet", ".venv/lib/x.py", "mlflow.db", "mlartifacts/1/x", "cluster/__pycache__/x.pyc")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    excludes = get_runtime_env_default_excludes()
    create_package(str(folder), package, True, excludes=excludes, logger=logging.getLogger("quiet"))
    with zipfile.ZipFile(package) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    left_out = (".ci/", "deploy/", "docs/", "mkdocs.yml", "requirements/", "results/", "tests/")
    assert names == {name for name in tracked() if not name.startswith(left_out)}
    assert package.stat().st_size < 2_000_000


@pytest.fixture(scope="module")
def kuberay() -> jsonschema.Draft202012Validator:
    fields = load(ROOT / "tests" / "deploy" / "kuberay_fields.yaml")
    jsonschema.Draft202012Validator.check_schema(fields)
    return jsonschema.Draft202012Validator(fields)


@pytest.fixture
def cluster() -> dict[str, Any]:
    return copy.deepcopy(load(DEPLOY / "cluster.yaml"))  # YAML's aliases are one object


def groups(cluster: dict[str, Any]) -> dict[str, Any]:
    return {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}


def nodes(cluster: dict[str, Any]) -> list[Any]:
    """Return the pod templates of a cluster: the head's, then each worker group's."""
    return [node["template"] for node in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"])]


def submitter() -> dict[str, Any]:
    return load(DEPLOY / "job.yaml")["spec"]["submitterPodTemplate"]


def check_by_kubernetes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.31", strict=True)


def check_pod_by_kubernetes(template: dict[str, Any]) -> None:
    check_by_kubernetes({"apiVersion": "v1", "kind": "Pod", **template})


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_manifests_have_kuberays_fields(kuberay: jsonschema.Draft202012Validator, name: str) -> None:
    kuberay.validate(load(DEPLOY / name))


def test_pods_have_kubernetes_fields(cluster: dict[str, Any]) -> None:
    for template in (*nodes(cluster), submitter()):
        check_pod_by_kubernetes(template)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayVersion"), 2.6),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "workerGroupSpecs", 0, "replica"), 1),
        (("spec", "workerGroupSpecs", 0, "replicas"), "1"),
        (("metadata", "name"), "Mal_Grad_CAM"),
    ],
)
def test_a_slip_in_a_manifest_is_found(
    kuberay: jsonschema.Draft202012Validator, cluster: dict[str, Any], path: tuple[Any, ...], value: object
) -> None:
    put(cluster, path, value)
    with pytest.raises(jsonschema.ValidationError):
        kuberay.validate(cluster)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "containers", 0, "resources", "limits", "memory"), {"32": "GB"}),
        (("spec", "tolerations", 0, "keys"), "x"),
        (("spec", "securityContext", "seccomp"), {"type": "RuntimeDefault"}),
        (("spec", "containers", 0, "securityContext", "readOnlyRootFileSystem"), True),
        (("spec", "volumes", 0, "emptyDir", "size"), "1Gi"),
    ],
)
def test_a_slip_in_a_pod_is_found(cluster: dict[str, Any], path: tuple[Any, ...], value: object) -> None:
    template = nodes(cluster)[-1]
    put(template, path, value)
    with pytest.raises(kubernetes_validate.ValidationError):
        check_pod_by_kubernetes(template)


def test_the_cluster_asks_for_a_token(cluster: dict[str, Any]) -> None:
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert cluster["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_pods_are_as_restricted_as_they_can_be(cluster: dict[str, Any]) -> None:
    """The `restricted` Pod Security Standard, and a root file system that is read-only but for two emptyDir folders."""
    for pod in (template["spec"] for template in (*nodes(cluster), submitter())):
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "serviceAccountName"} & set(pod)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert str(pod["securityContext"]["runAsUser"]) == instructions("USER")[-1]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
            "tmp": "/tmp",  # noqa: S108 - the pod's own
            "home": instructions("WORKDIR")[-1],
        }
        assert {volume["name"] for volume in pod["volumes"]} == {"tmp", "home"}
        assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"])


def test_pods_get_the_secrets_that_they_need(cluster: dict[str, Any]) -> None:
    """Drivers and workers read storage, query the black box, record in MLflow; what submits a job does none of it."""
    needed = ["malgradcam-storage", "malgradcam-teacher", "malgradcam-tracking"]
    for template in nodes(cluster):
        (container,) = template["spec"]["containers"]
        assert [source["secretRef"]["name"] for source in container["envFrom"]] == needed
        assert "env" not in container
    assert not {"env", "envFrom"} & set(submitter()["spec"]["containers"][0])


def test_every_place_names_one_version_and_one_ray(cluster: dict[str, Any]) -> None:
    locked = dict(re.findall(r"^(\S+)==(\S+) ", (ROOT / "requirements" / "image.txt").read_text(), re.MULTILINE))
    assert cluster["spec"]["rayVersion"] == locked["ray"]
    images = {container["image"] for template in nodes(cluster) for container in template["spec"]["containers"]}
    assert images == {IMAGE, f"{IMAGE}-gpu"}
    assert {container["image"] for container in submitter()["spec"]["containers"]} == {IMAGE}


def test_a_node_with_a_gpu_has_an_onnx_runtime_that_computes_on_it(cluster: dict[str, Any]) -> None:
    """A reserved GPU with the other image would stand idle while ONNX files are computed on the cores."""
    for template in nodes(cluster):
        (container,) = template["spec"]["containers"]
        assert container["image"].endswith("-gpu") == ("nvidia.com/gpu" in container["resources"]["requests"])
    config = load(DEPLOY / "aws.yaml")
    for kind in config["available_node_types"].values():
        image = kind.get("docker", {}).get("worker_image", config["docker"]["image"])
        assert image == (f"{IMAGE}-gpu" if kind["node_config"]["InstanceType"].startswith(("g", "p")) else IMAGE)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ({}, WorkerResources(num_workers=4, cpus=4, gpus=0)),
        ({"cpu": 8}, WorkerResources(num_workers=16, cpus=4, gpus=0)),
        ({"cpu": 0, "gpu": 2}, WorkerResources(num_workers=2, cpus=8, gpus=1)),
        ({"cpu": 0, "gpu": 1, "gpu-spot": 7}, WorkerResources(num_workers=8, cpus=8, gpus=1)),
        ({"gpu": 2}, WorkerResources(num_workers=2, cpus=8, gpus=1)),
    ],
)
def test_kinds_of_nodes_are_numbers(
    cluster: dict[str, Any], replicas: dict[str, int], expected: WorkerResources
) -> None:
    """What jobs make of the cluster follows from the groups' replicas alone."""
    numbers: dict[str, int] = {name: group["replicas"] for name, group in groups(cluster).items()} | replicas
    machines = [(int(cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"]), 0)]
    for name, group in groups(cluster).items():
        number = numbers[name]
        assert group["minReplicas"] <= number <= group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        machines += [(int(limits["cpu"]), int(limits.get("nvidia.com/gpu", 0)))] * number
    assert divide(machines, None) == expected


def test_the_job_goes_to_the_cluster_and_its_command_is_one(cluster: dict[str, Any]) -> None:
    spec = load(DEPLOY / "job.yaml")["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    python, flag, package, *words = shlex.split(spec["entrypoint"])
    assert (python, flag, package) == ("python", "-m", "explain")
    method, job = parse(words)
    assert method == "mal_grad_cam"
    assert job.out.endswith(f"/{method}")


def test_the_ray_up_file_is_what_ray_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(DEPLOY / "aws.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    config["available_node_types"]["cpu"]["max_worker"] = 2
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def test_the_ray_up_file_asks_for_a_token_and_stays_on_loopback() -> None:
    config = load(DEPLOY / "aws.yaml")
    options = config["docker"]["run_options"]
    assert {"--env RAY_AUTH_MODE=token", "--cap-drop ALL", "--security-opt no-new-privileges"} <= set(options)
    assert "~/.ray/auth_token" in config["file_mounts"]
    (head,) = [command for command in config["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host 127.0.0.1" in head
    kinds = config["available_node_types"]
    head_node = kinds.pop(config["head_node_type"])
    assert head_node["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head_node["node_config"]
    assert all(kind["min_workers"] == kind["max_workers"] for kind in kinds.values())


def test_the_ray_up_files_machines_are_what_amazon_takes() -> None:
    """Fields and types of each node against the model of EC2's RunInstances that botocore ships."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in load(DEPLOY / "aws.yaml")["available_node_types"].items():
        report = ParamValidator().validate({**kind["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        assert all(disk["Ebs"]["Encrypted"] for disk in kind["node_config"].get("BlockDeviceMappings", ()))
