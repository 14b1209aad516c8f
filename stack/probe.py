"""Asks a process whether it serves; every answer comes within `TIMEOUT`."""

import http.client
import socket

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stack.configuration import POSTGRES_USER
from stack.table import Probe

TIMEOUT = 2.0  # seconds


def answers(probe: Probe) -> bool:
    """Whether the process serves requests now."""
    if not _listens(probe):
        return False
    return {"http": _http, "redis": _redis, "postgres": _postgres, "kafka": _kafka}[probe.protocol](probe)


def _listens(probe: Probe) -> bool:
    try:
        socket.create_connection((probe.host, probe.port), TIMEOUT).close()
    except OSError:
        return False
    return True


def _http(probe: Probe) -> bool:
    connection = http.client.HTTPConnection(probe.host, probe.port, timeout=TIMEOUT)
    try:
        connection.request("GET", probe.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _redis(probe: Probe) -> bool:
    try:
        with socket.create_connection((probe.host, probe.port), TIMEOUT) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")  # while it loads its snapshot: -LOADING
    except OSError:
        return False


def _postgres(probe: Probe) -> bool:
    try:
        psycopg.connect(
            host=probe.host, port=probe.port, user=POSTGRES_USER, dbname="postgres", connect_timeout=int(TIMEOUT)
        ).close()
    except psycopg.OperationalError:
        return False
    return True


def _kafka(probe: Probe) -> bool:
    client = AdminClient({"bootstrap.servers": f"{probe.host}:{probe.port}", "log_level": 0})
    try:
        return bool(client.list_topics(timeout=TIMEOUT).brokers)
    except KafkaException:
        return False
