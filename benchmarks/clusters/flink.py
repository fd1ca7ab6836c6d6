"""Flink's standalone cluster: a job manager and task managers, all started from Beam's jar, which contains Flink."""

from __future__ import annotations

from pathlib import Path

from benchmarks.clusters.settings import OPENED, Process, Settings

ENTRY = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# These processes only pass on data that Python computes. Optimizing their code would take longer than running it.
LIGHT = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
# Timestamps in the logs of all processes.
TIMED = ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"]


def missing() -> list[str]:
    return []


def processes(jar: Path, settings: Settings) -> list[Process]:
    """Return the processes, beginning with the job manager and ending with the job server."""
    master, found = "[local]", []
    if settings.workers:
        master = f"127.0.0.1:{settings.web_port}"
        conf = settings.home / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        (conf / "config.yaml").write_text(_configuration(settings))
        here = ["--configDir", str(conf)]
        found = [Process("master", ["java", *OPENED, *LIGHT, *TIMED, "-Xmx512m", "-cp", str(jar), ENTRY, *here])]
        memory = [*LIGHT, *TIMED, "-Xmx512m", "-XX:MaxDirectMemorySize=384m"]
        found += [
            Process(f"worker-{number}", ["java", *OPENED, *memory, "-cp", str(jar), TASK_MANAGER, *here])
            for number in range(1, settings.workers + 1)
        ]
    server = ["java", *OPENED, *LIGHT, *TIMED, "-Xmx512m", "-jar", str(jar), f"--flink-master={master}"]
    return [*found, Process("jobserver", [*server, *settings.job_server_arguments()])]


def is_ready(settings: Settings) -> bool:
    return not settings.workers or settings.web_json("/overview").get("taskmanagers") == settings.workers


def _configuration(settings: Settings) -> str:
    """Return Flink's configuration. Without the scripts of a distribution, Flink requires every size of memory."""
    return f"""\
jobmanager: {{rpc: {{address: 127.0.0.1, port: {settings.master_port}}}, bind-host: 127.0.0.1}}
rest: {{address: 127.0.0.1, bind-address: 127.0.0.1, port: {settings.web_port}}}
cluster: {{evenly-spread-out-slots: true}}
slotmanager: {{requirement-check: {{delay: 0 ms}}}} # a job gets its slots at once
# A lost worker is detected within seconds, and its work is repeated elsewhere.
heartbeat: {{interval: 1000, timeout: 10000}}
restart-strategy: {{type: fixed-delay, fixed-delay: {{attempts: 10, delay: 1 s}}}}
taskmanager:
  host: 127.0.0.1
  bind-host: 127.0.0.1
  numberOfTaskSlots: {settings.slots}
  cpu: {{cores: 2}}
  memory:
    framework: {{heap: {{size: 128m}}, off-heap: {{size: 128m}}}}
    task: {{heap: {{size: 384m}}, off-heap: {{size: 0m}}}}
    managed: {{size: 128m}}
    network: {{min: 128m, max: 128m}}
    jvm-metaspace: {{size: 256m}}
    jvm-overhead: {{min: 192m, max: 192m}}
  network: {{sort-shuffle: {{min-buffers: 32}}}}
io: {{tmp: {{dirs: {settings.home / "tmp"}}}}}
blob: {{service: {{cleanup: {{interval: 30}}}}}} # each job uploads the jar again
classloader: {{resolve-order: parent-first}}
"""
