"""deploy/network.yaml: whom its policies let the cluster's pods reach, and who may reach them."""

import ipaddress
from typing import Any

import kubernetes_validate
import pytest
import yaml
from project_paths import ROOT

DEPLOY = ROOT / "deploy"
POLICIES = yaml.safe_load((DEPLOY / "network.yaml").read_text())["items"]
CLUSTER = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
JOB = yaml.safe_load((DEPLOY / "job.yaml").read_text())


def ray_node(kind: str) -> dict[str, Any]:
    """Return a pod as KubeRay labels it beside the labels of its template."""
    group = CLUSTER["spec"]["headGroupSpec"] if kind == "head" else CLUSTER["spec"]["workerGroupSpecs"][0]
    ray = {"ray.io/cluster": CLUSTER["metadata"]["name"], "ray.io/node-type": kind}
    return {"labels": group["template"]["metadata"]["labels"] | ray}


HEAD, WORKER = ray_node("head"), ray_node("worker")
SUBMITTER = {"labels": JOB["spec"]["submitterPodTemplate"]["metadata"]["labels"]}
OPERATOR = {"labels": {"app.kubernetes.io/component": "kuberay-operator"}, "namespace": "ray-system"}
DNS = {"labels": {"k8s-app": "kube-dns"}, "namespace": "kube-system"}
STRANGER = {"labels": {"app": "other"}}
STORAGE, METADATA, ROLE = ({"address": address} for address in ("52.218.0.1", "169.254.169.254", "169.254.170.23"))


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(rule: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Say whether a rule's `from` or `to` names a pod or address, as the Kubernetes reference defines it."""
    if "ipBlock" in rule:
        address = ipaddress.ip_address(pod.get("address", "10.0.0.9"))
        block = rule["ipBlock"]
        inside = [address in ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", ()))]
        return inside[0] and not any(inside[1:])
    if "labels" not in pod:
        return False
    namespace = pod.get("namespace", "default")
    names = {"kubernetes.io/metadata.name": namespace}
    there = matches(rule["namespaceSelector"], names) if "namespaceSelector" in rule else namespace == "default"
    return there and matches(rule.get("podSelector", {}), pod["labels"])


def lets(direction: str, pod: dict[str, Any], other: dict[str, Any], port: int) -> bool:
    """Say whether the policies that select a pod let it talk with the other; a pod that none selects may."""
    if "labels" not in pod or pod.get("namespace", "default") != "default":
        return True
    chosen = [policy["spec"] for policy in POLICIES if matches(policy["spec"]["podSelector"], pod["labels"])]
    chosen = [spec for spec in chosen if direction.title() in spec["policyTypes"]]
    rules = [rule for spec in chosen for rule in spec.get(direction, ())]
    return not chosen or any(
        (port in [allowed["port"] for allowed in rule["ports"]] if "ports" in rule else True)
        and any(is_peer(peer, other) for peer in rule["from" if direction == "ingress" else "to"])
        for rule in rules
    )


def reaches(source: dict[str, Any], target: dict[str, Any], port: int) -> bool:
    return lets("egress", source, target, port) and lets("ingress", target, source, port)


def test_policies_have_kubernetes_fields() -> None:
    for policy in POLICIES:
        kubernetes_validate.validate(policy, "1.31", strict=True)
        assert policy["spec"].keys() <= {
            "podSelector",
            "policyTypes",
            *(t.lower() for t in policy["spec"]["policyTypes"]),
        }


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (WORKER, HEAD, 6379),
        (HEAD, WORKER, 10002),
        (WORKER, WORKER, 43_211),
        (SUBMITTER, HEAD, 8265),
        (OPERATOR, HEAD, 8265),
        (WORKER, STORAGE, 443),
        (HEAD, STORAGE, 443),
        *((pod, DNS, 53) for pod in (HEAD, WORKER, SUBMITTER)),
    ],
)
def test_what_is_needed_passes(source: dict[str, Any], target: dict[str, Any], port: int) -> None:
    assert reaches(source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        (STRANGER, HEAD, 8265),
        (STRANGER, HEAD, 6379),
        (STRANGER, WORKER, 10002),
        (OPERATOR | {"labels": {"app": "other"}}, HEAD, 8265),
        (OPERATOR, HEAD, 6379),
        (SUBMITTER, HEAD, 6379),
        (SUBMITTER, WORKER, 8265),
        (SUBMITTER, STORAGE, 443),
        (WORKER, SUBMITTER, 80),
        (WORKER, STRANGER, 5432),
        (WORKER, STORAGE, 80),
        (WORKER, METADATA, 80),
        (WORKER, METADATA, 443),
        (HEAD, ROLE, 443),
    ],
)
def test_nothing_else_does(source: dict[str, Any], target: dict[str, Any], port: int) -> None:
    assert not reaches(source, target, port)
