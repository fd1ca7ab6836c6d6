"""The settings and the processes of a cluster."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Packages to which both engines need access on Java 17.
OPENED = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        "java.io",
        "java.lang",
        "java.lang.invoke",
        "java.lang.reflect",
        "java.net",
        "java.nio",
        "java.text",
        "java.time",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "java.util.concurrent.locks",
        "sun.nio.ch",
        "sun.nio.cs",
        "sun.security.action",
    )
]


@dataclass(frozen=True)
class Settings:
    """A cluster.

    Attributes:
        home: folder of logs and process ids.
        workers: number of workers. 0 for a cluster inside the job server.
        slots: concurrent tasks per worker.
    """

    home: Path
    workers: int = 2
    slots: int = 4
    job_port: int = 8099
    pool_port: int = 50000
    master_port: int = 6123
    web_port: int = 8081

    @staticmethod
    def is_open(*ports: int) -> bool:
        for port in ports:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)):
                    return False
        return True

    def web_json(self, path: str) -> dict[str, Any]:
        """Return the JSON of a page of the engine's web server, or an empty dict if it does not respond."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            return {}

    def job_server_arguments(self, artifacts: str = "artifacts") -> list[str]:
        """Return the arguments that all job servers of Beam have in common."""
        return [
            "--job-host=127.0.0.1",
            f"--job-port={self.job_port}",
            "--artifact-port=0",
            "--expansion-port=0",
            f"--artifacts-dir={self.home / artifacts}",
        ]


@dataclass(frozen=True)
class Process:
    """A process of a cluster. `environment` extends the environment of this process."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
