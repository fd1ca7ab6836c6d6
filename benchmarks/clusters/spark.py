"""Spark's standalone cluster: a master and workers, from PySpark or another distribution."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from benchmarks.clusters.settings import OPENED, Process, Settings

MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"
DRIVER = "org.apache.beam.runners.spark.SparkJobServerDriver"


def missing() -> list[str]:
    return [] if _distribution() else ["pyspark"]


def processes(jar: Path, settings: Settings) -> list[Process]:
    """Return the processes, beginning with the master and ending with the job server."""
    spark = _distribution()
    java = ["java", *OPENED, "-Xmx512m"]
    environment = {
        "SPARK_HOME": str(spark),
        "SPARK_LOCAL_DIRS": str(settings.home / "tmp"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SCALA_VERSION": "2.12",
    }
    master, found = f"local[{2 * settings.slots}]", []
    if settings.workers:
        master = f"spark://127.0.0.1:{settings.master_port}"
        spark_alone = [*java, "-cp", f"{spark}/jars/*"]
        ports = ["--host=127.0.0.1", f"--port={settings.master_port}", f"--webui-port={settings.web_port}"]
        share = [f"--cores={settings.slots}", "--memory=1g", f"--work-dir={settings.home / 'work'}"]
        found = [Process("master", [*spark_alone, MASTER, *_name_and_value(ports)], environment)]
        found += [
            Process(
                f"worker-{number}",
                [*spark_alone, WORKER, *_name_and_value(["--host=127.0.0.1", "--webui-port=0", *share]), master],
                environment,
            )
            for number in range(1, settings.workers + 1)
        ]
    server = [
        *java,
        *_properties(jar, settings),
        "-cp",
        f"{jar}:{spark}/jars/*",
        DRIVER,
        f"--spark-master-url={master}",
    ]
    return [*found, Process("jobserver", [*server, *settings.job_server_arguments()], environment)]


def is_ready(settings: Settings) -> bool:
    return not settings.workers or settings.web_json("/json/").get("aliveworkers") == settings.workers


def _properties(jar: Path, settings: Settings) -> list[str]:
    """Return Spark's configuration of the driver in the job server and of its executors."""
    chosen = {
        # One context serves the job of the orchestrator and, while that waits, the jobs of the stages. Without this
        # property, which Beam has for its tests, the first job that ends would close the context of the others.
        "beam.spark.test.reuseSparkContext": "true",
        "spark.scheduler.mode": "FAIR",
        "spark.executor.memory": "768m",
        "spark.executor.extraClassPath": jar,
        "spark.default.parallelism": max(settings.workers, 1),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
    }
    return [f"-D{name}={value}" for name, value in chosen.items()]


def _name_and_value(arguments: list[str]) -> list[str]:
    """Split `--name=value`, because Spark expects the name and the value as two arguments."""
    return [part for argument in arguments for part in argument.split("=", 1)]


def _distribution() -> Path | None:
    """Return SPARK_HOME or the folder of PySpark, without importing it."""
    if os.environ.get("SPARK_HOME"):
        return Path(os.environ["SPARK_HOME"])
    found = importlib.util.find_spec("pyspark")
    return Path(found.origin).parent if found is not None and found.origin else None
