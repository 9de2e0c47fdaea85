"""Reads manifests and prints them as JSON, validated. Runs in the environment `manifests`: render.py FOLDER [VERSION].

A folder with a kustomization is rendered: its resources, with its patches merged in as Kubernetes merges them.
Resources of the Dask operator are checked by their parts, which are a PodSpec and a ServiceSpec of Kubernetes.
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

VERSION = "1.30"
# Lists that are merged by a field of their items; all others are replaced.
MERGE_KEYS = {
    "containers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def render(folder):
    kustomization = folder / "kustomization.yaml"
    if not kustomization.exists():
        return [document for path in sorted(folder.glob("*.yaml")) for document in documents(path)]
    (kustomization,) = documents(kustomization)
    resources = []
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        resources += render(path) if path.is_dir() else documents(path)
    for patch in kustomization.get("patches", []):
        for document in documents(folder / patch["path"]):
            (target,) = [resource for resource in resources if identity(resource) == identity(document)]
            merge(target, document)
    return resources


def identity(resource):
    return resource["apiVersion"], resource["kind"], resource["metadata"].get("name")


def merge(target, patch):
    for name, value in patch.items():
        known = target.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            merge(known, value)
        elif isinstance(value, list) and isinstance(known, list) and name in MERGE_KEYS:
            key = MERGE_KEYS[name]
            for item in value:
                same = [other for other in known if other[key] == item[key]]
                merge(same[0], item) if same else known.append(item)
        else:
            target[name] = value


def validate(resource):
    kind = resource["kind"]
    if not kind.startswith("Dask"):
        kubernetes_validate.validate(resource, VERSION, strict=True)
        return
    assert resource["apiVersion"] == "kubernetes.dask.org/v1", resource["apiVersion"]
    spec = resource["spec"]
    if kind == "DaskCluster":
        validate_cluster(spec)
    elif kind == "DaskJob":
        assert set(spec) == {"job", "cluster"}, spec.keys()
        validate_pod(spec["job"]["spec"])
        validate_cluster(spec["cluster"]["spec"])
    elif kind == "DaskAutoscaler":
        assert set(spec) == {"cluster", "minimum", "maximum"}, spec.keys()
        assert isinstance(spec["minimum"], int) and isinstance(spec["maximum"], int)
    else:
        raise AssertionError(f"no rule for {kind}")


def validate_cluster(spec):
    assert set(spec) <= {"idleTimeout", "worker", "scheduler"}, spec.keys()
    assert set(spec["worker"]) == {"replicas", "spec"} and isinstance(spec["worker"]["replicas"], int)
    assert set(spec["scheduler"]) == {"spec", "service"}
    validate_pod(spec["worker"]["spec"])
    validate_pod(spec["scheduler"]["spec"])
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec["scheduler"]["service"]}
    kubernetes_validate.validate(service, VERSION, strict=True)
    ports = {port["name"] for container in spec["scheduler"]["spec"]["containers"] for port in container["ports"]}
    targets = {port["targetPort"] for port in spec["scheduler"]["service"]["ports"]}
    assert targets <= ports, f"the service targets {targets}, the container has {ports}"


def validate_pod(spec):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, VERSION, strict=True)


if __name__ == "__main__":
    rendered = render(pathlib.Path(sys.argv[1]))
    for resource in rendered:
        validate(resource)
    json.dump(rendered, sys.stdout)
