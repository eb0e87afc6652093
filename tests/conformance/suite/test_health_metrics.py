"""/health and /metrics (CONTRACT.md 1.7)."""

import json
import re
from datetime import datetime

import pytest

from tests.conformance.suite.go_client import Server

SAMPLE = re.compile(r"(\w+)(?:\{([^}]*)\})? (\S+)")


@pytest.mark.every_log
def test_health(server: Server) -> None:
    status, headers, read = server.raw("GET", "/health")
    document = json.loads(read)
    assert (status, headers["content-type"]) == (200, "application/health+json")
    assert document["status"] == "pass"
    assert isinstance(document["version"], str)
    assert document["version"]
    (check,) = document["checks"]["queues:storage"]
    assert (check["componentType"], check["status"]) == ("datastore", "pass")
    assert datetime.fromisoformat(check["time"]).tzinfo is not None
    known = {
        "status",
        "version",
        "checks",
        "releaseId",
        "notes",
        "output",
        "links",
        "serviceId",
        "description",
    }
    assert set(document) <= known
    assert set(check) <= {"componentType", "status", "time", "output", "componentId"}


def test_health_needs_no_key(guarded: Server) -> None:
    guarded.ok("rolebindings.delete", namespace="_system", role_name="Admin", user_id="anonymous")
    assert guarded.refusal("queues.list") == (403, "access denied")
    for path in ("/health", "/metrics"):
        for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "junk"}):
            assert guarded.raw("GET", path, b"", headers)[0] == 200
    assert guarded.raw("GET", "/health?verbose=1")[0] == 200


def test_metrics(server: Server) -> None:
    server.create()
    for _ in range(3):
        server.stats()
    server.refusal("queues.info", queue_name="none")
    status, headers, read = server.raw("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    lines = read.decode().splitlines()
    assert "# TYPE http_handler_duration summary" in lines
    samples = {match[1] + (match[2] or ""): match[3] for match in map(SAMPLE.fullmatch, lines) if match}
    assert samples['http_handler_duration_countpath="/v1/queue.stats"'] == "3.0"
    assert samples['http_handler_duration_countpath="/v1/queues.info"'] == "1.0"
    for quantile in ("0.5", "0.99"):
        (value,) = (
            float(value)
            for name, value in samples.items()
            if name.startswith("http_handler_duration")
            and 'path="/v1/queue.stats"' in name
            and f'quantile="{quantile}"' in name
        )
        assert 0 < value < 10
    assert any(name.startswith("promhttp_metric_handler_requests_total") for name in samples)
