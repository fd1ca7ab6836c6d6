"""What is asked of a cluster, and what it is made of."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What both engines reach into on Java 17.
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
        home: where its logs and process ids lie.
        workers: how many; 0 for a cluster inside the job server.
        slots: what each of them does at once.
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

    def asked(self, path: str) -> dict[str, Any]:
        """What the engine's web page answers as JSON; nothing where it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            return {}

    def job_server_arguments(self, artifacts: str = "artifacts") -> list[str]:
        """What all of Beam's job servers take."""
        return [
            "--job-host=127.0.0.1",
            f"--job-port={self.job_port}",
            "--artifact-port=0",
            "--expansion-port=0",
            f"--artifacts-dir={self.home / artifacts}",
        ]


@dataclass(frozen=True)
class Process:
    """One process of a cluster; `environment` is added to what this one has."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
