"""deploy/kubernetes: what the API server takes, and true to what the code has.

Schemas of the API are those that kubernetes-validate ships, in their strict form: a field that does
not exist is refused. KEDA's is in tests/schemas.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from commands.__main__ import COMMANDS
from config.settings import Settings, describe, load_settings
from serving import processes, routes_health
from serving.gate import BUSY_SHARE

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy/kubernetes"
KEDA = json.loads((ROOT / "tests/schemas/keda_scaledobject.json").read_text())
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
VERSION = "1.37"
WORKER_ENDS_SECONDS = 10
"""After SIGTERM: docs/reliability.md, `worker-term`."""


def _documents() -> Iterator[dict[str, Any]]:
    for name in KUSTOMIZATION["resources"]:
        yield from yaml.safe_load_all((FOLDER / name).read_text())


DOCUMENTS = list(_documents())
IDS = [f"{one['kind']} {one['metadata']['name']}" for one in DOCUMENTS]


def _the(kind: str, name: str) -> dict[str, Any]:
    (found,) = (d for d in DOCUMENTS if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def _pods() -> dict[str, dict[str, Any]]:
    """Pod templates by the name of what makes them."""
    return {
        d["metadata"]["name"]: d["spec"]["template"]
        for d in DOCUMENTS
        if "template" in d.get("spec", {})
    }


PODS = _pods()


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def _validate(document: dict[str, Any]) -> None:
    if document["apiVersion"].startswith("keda.sh/"):
        jsonschema.Draft202012Validator(KEDA).validate(document)
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


def _dockerfile(name: str) -> str:
    found = re.search(rf'\b{name}=("?)(\S*)\1', (ROOT / "Dockerfile").read_text())
    assert found, name
    return found[2]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the pods read them."""
    for values in (
        _the("ConfigMap", "headwater")["data"],
        _the("Secret", "headwater")["stringData"],
    ):
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_the_schema_allows_it(document: dict[str, Any]) -> None:
    _validate(document)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "headwater-server", ["spec", "replica"], 3),
        ("Deployment", "headwater-server", ["spec", "template", "spec", "containers"], {}),
        ("Service", "headwater", ["spec", "ports", 0, "port"], "http"),
        ("HorizontalPodAutoscaler", "headwater-server", ["spec", "maxReplicas"], "many"),
        ("ScaledObject", "headwater-worker", ["spec", "maxReplicas"], 16),
        ("ScaledObject", "headwater-worker", ["spec", "triggers", 0, "metadata", "topic"], 1),
        ("ScaledObject", "headwater-worker", ["spec", "triggers", 1, "type"], "lag"),
    ],
)
def test_the_schemas_refuse_what_is_wrong(
    kind: str, name: str, path: list[Any], value: Any
) -> None:
    broken = copy.deepcopy(_the(kind, name))
    place: Any = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        _validate(broken)


def test_every_file_is_applied_and_nothing_twice() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    assert len(set(IDS)) == len(IDS)
    assert KUSTOMIZATION["namespace"] == _the("Namespace", "headwater")["metadata"]["name"]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert KUSTOMIZATION["images"] == [{"name": "headwater", "newTag": version[1]}]
    assert all(c["image"] == "headwater" for pod in PODS.values() for c in _containers(pod))


def test_settings_exist(settings: Settings) -> None:
    known = {row["variable"] for row in describe(settings)}
    for kind, part in (("ConfigMap", "data"), ("Secret", "stringData")):
        assert _the(kind, "headwater")[part].keys() <= known
    # What may hold a password is no plain setting.
    assert "HEADWATER_REDIS__URL" in _the("Secret", "headwater")["stringData"]
    own = {e["name"] for pod in PODS.values() for c in _containers(pod) for e in c.get("env", [])}
    assert own <= known
    assert settings.kafka.replication == 3
    assert "PROMETHEUS_MULTIPROC_DIR" not in own


def test_commands_exist() -> None:
    for name, command in (("headwater-server", "serve"), ("headwater-worker", "worker")):
        (container,) = PODS[name]["spec"]["containers"]
        assert container["command"] == ["headwater", command]
        assert command in COMMANDS
    (container,) = PODS["headwater-topics"]["spec"]["containers"]
    compile(container["command"][2], "topics", "exec")


def test_ports_are_those_that_are_listened_on(settings: Settings) -> None:
    for name, port in (
        ("headwater-server", settings.http.port),
        ("headwater-worker", settings.worker.metrics_port),
    ):
        (container,) = PODS[name]["spec"]["containers"]
        assert [one["containerPort"] for one in container["ports"]] == [port]
        annotations = PODS[name]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(port)
        assert annotations["prometheus.io/path"] == "/metrics"
    assert settings.http.host == settings.worker.metrics_host == "0.0.0.0"  # noqa: S104
    (port,) = _the("Service", "headwater")["spec"]["ports"]
    (named,) = PODS["headwater-server"]["spec"]["containers"][0]["ports"]
    assert port["targetPort"] == named["name"]


def test_probes_ask_routes_that_exist() -> None:
    served = {route.path for route in routes_health.routes}
    for name in ("headwater-server", "headwater-worker"):
        (container,) = PODS[name]["spec"]["containers"]
        ports = {one["name"] for one in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["path"] in served
                assert container[probe]["httpGet"]["port"] in ports
    (server,) = PODS["headwater-server"]["spec"]["containers"]
    assert server["startupProbe"]["httpGet"]["path"] == "/health/ready"
    # All pods lose Redis at once, and go on to answer: that must not take them out of the service.
    for probe in ("readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["path"] == "/health/live"
    # A worker that waits for Kafka or Redis is no better when it is killed.
    assert "livenessProbe" not in PODS["headwater-worker"]["spec"]["containers"][0]


def test_there_is_time_to_end() -> None:
    server = PODS["headwater-server"]["spec"]
    pause = server["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = server["containers"][0]["readinessProbe"]
    # Long enough for proxies to hear of it.
    assert pause > readiness["periodSeconds"]
    assert processes.KILL_SECONDS > processes.DRAIN_SECONDS
    assert server["terminationGracePeriodSeconds"] >= pause + processes.KILL_SECONDS
    worker = PODS["headwater-worker"]["spec"]
    assert worker["terminationGracePeriodSeconds"] >= 2 * WORKER_ENDS_SECONDS


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_little(name: str, settings: Settings) -> None:
    spec = PODS[name]["spec"]
    user = re.search(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == int(user[1])
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in _containers(PODS[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", ["headwater-server", "headwater-worker"])
def test_what_is_written_to_can_be(name: str, settings: Settings) -> None:
    """The root file system is read-only: what is written lies elsewhere."""
    spec = PODS[name]["spec"]
    volumes = {one["name"] for one in spec["volumes"] if "emptyDir" in one}
    (container,) = spec["containers"]
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    compiled = _dockerfile("NUMBA_CACHE_DIR")
    assert compiled in mounts
    assert settings.services.data_dir.parent == Path("/tmp")  # noqa: S108
    assert "/tmp" in mounts  # noqa: S108
    (copying,) = spec["initContainers"]
    assert copying["command"] == ["cp", "-r", f"{compiled}/.", "/compiled"]
    (there,) = copying["volumeMounts"]
    assert there["mountPath"] == "/compiled"
    own = next(one for one in container["volumeMounts"] if one["mountPath"] == compiled)
    assert there["name"] == own["name"]


def test_names_lead_to_each_other() -> None:
    for name in ("headwater-server", "headwater-worker"):
        deployment = _the("Deployment", name)
        labels = PODS[name]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert _the("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
        # An autoscaler's number would be overwritten at each apply.
        assert "replicas" not in deployment["spec"]
        (spread,) = PODS[name]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == labels
    server = _the("HorizontalPodAutoscaler", "headwater-server")["spec"]["scaleTargetRef"]
    assert (server["kind"], server["name"]) == ("Deployment", "headwater-server")
    worker = _the("ScaledObject", "headwater-worker")["spec"]["scaleTargetRef"]
    assert worker == {"name": "headwater-worker"}
    service = _the("Service", "headwater")["spec"]["selector"]
    assert service == PODS["headwater-server"]["metadata"]["labels"]
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            for source in container["envFrom"]:
                ((kind, found),) = source.items()
                _the({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], found["name"])


def test_servers_are_added_before_they_refuse() -> None:
    spec = _the("HorizontalPodAutoscaler", "headwater-server")["spec"]
    (metric,) = spec["metrics"]
    assert metric["resource"]["name"] == "cpu"
    assert metric["resource"]["target"]["averageUtilization"] < 100 * BUSY_SHARE
    assert spec["minReplicas"] >= 2
    assert spec["maxReplicas"] >= 10 * spec["minReplicas"]
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]
    # Utilization is of what is requested: one core, which one process can take.
    (container,) = PODS["headwater-server"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "1"


def test_workers_are_added_by_lag_within_their_partitions(settings: Settings) -> None:
    spec = _the("ScaledObject", "headwater-worker")["spec"]
    assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"] <= settings.kafka.partitions / 2
    kafka = next(one["metadata"] for one in spec["triggers"] if one["type"] == "kafka")
    assert kafka["bootstrapServers"] == settings.kafka.bootstrap
    assert kafka["consumerGroup"] == settings.kafka.group
    assert kafka["topic"] == settings.kafka.events_topic
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    # Rebalances cost: down slowly, and never by the lag that one of them causes.
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 600
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] > spec["pollingInterval"]
