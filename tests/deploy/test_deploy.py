"""The files in deploy/ fit each other and the program: flags, variables, ports, paths and extras that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("yaml")

import yaml

from outthink.serving.config import read_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_the_image_is_small_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(":" in stage and not stage.endswith(":latest") for stage in stages)
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER \d+$", last, re.MULTILINE)
    assert "pip" not in last
    assert "HEALTHCHECK" in last
    extras = re.search(r"'\.\[([\w,]+)\]'", text)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known)


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = [part for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for part in line.split()[:-1]]
    kept = {line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert copied
    assert all((ROOT / part).exists() and part.removeprefix("./") in kept for part in copied)


def test_compose_wires_services_that_exist() -> None:
    result = read("compose.yaml")
    services = result["services"]
    assert set(services) == {"vllm", "postgres", "outthink"}
    for name, service in services.items():
        assert "build" in service or re.search(r":[\w.-]*\d", service["image"]), f"{name} names no version"
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in result["volumes"] or (DEPLOY / source).exists()
        assert set(service["networks"]) <= {*result["networks"], "default"}
    proxy = services["outthink"]
    assert (DEPLOY / proxy["build"]["context"] / proxy["build"]["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    environment = {name: value.replace("${POSTGRES_PASSWORD}", "x") for name, value in proxy["environment"].items()}
    config = read_config(environ=environment)
    assert [backend.url for backend in config.backends] == ["http://vllm:8000/v1"]
    assert config.ledger.url == "postgresql://outthink:x@postgres/outthink"
    assert config.listen.keys == "required"
    assert all(port.startswith("127.0.0.1:") for port in proxy["ports"])


def test_the_kubernetes_base_reads_its_own_files() -> None:
    folder = DEPLOY / "kubernetes"
    base = read("kubernetes/kustomization.yaml")
    assert all((folder / name).is_file() for name in base["resources"])
    pod = read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    config = read_config(folder / "outthink.toml", environ={"OUTTHINK_SERVE_BACKENDS": container["env"][0]["value"]})
    assert config.limits.drain_seconds + config.limits.stop_seconds < pod["terminationGracePeriodSeconds"]
    assert config.listen.port == container["ports"][0]["containerPort"]
    assert config.listen.keys == "required"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")} == {"/healthz"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["securityContext"]["runAsNonRoot"]


def test_every_way_to_deploy_needs_keys() -> None:
    said = [name for name in ("Containerfile", "outthink.service") if _says_required((DEPLOY / name).read_text())]
    assert said == ["Containerfile", "outthink.service"]
    (scraped,) = read("prometheus.yaml")["scrape_configs"]
    assert scraped["metrics_path"] == "/metrics"
    assert scraped["authorization"]["credentials_file"]


def _says_required(text: str) -> bool:
    return re.search(r"^(?:ENV|Environment=).*\bOUTTHINK_SERVE_KEYS=required$", text, re.MULTILINE) is not None


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_renders_the_base() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    kinds = {part["kind"]: part for part in yaml.safe_load_all(done.stdout)}
    assert set(kinds) == {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service"}
    named = kinds["Deployment"]["spec"]["selector"]["matchLabels"]
    assert kinds["Service"]["spec"]["selector"] == named
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == named


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "outthink.service"
    text = (DEPLOY / "outthink.service").read_text()
    unit.write_text(text.replace("/opt/outthink/bin/outthink", "/bin/true"))
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, env=environ
    )
    assert "outthink" not in done.stderr, done.stderr
    score = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(unit)], capture_output=True, text=True, timeout=60
    )
    if result := re.search(r"exposure level for \S+: ([\d.]+)", score.stdout):
        assert float(result[1]) < 2.0


def test_the_unit_gives_running_requests_time_to_end() -> None:
    text = (DEPLOY / "outthink.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    limits = read_config(models="http://127.0.0.1:8001/v1", environ={}).limits
    assert int(stop[1]) > limits.drain_seconds + limits.stop_seconds
