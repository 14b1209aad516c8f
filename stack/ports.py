"""Finds out before a start that a port is taken, and by whom."""

import socket

import psutil

from fanline.errors import FanlineError
from stack.table import Process


class PortBusy(FanlineError):
    """A port that a process of the stack needs is taken by somebody else."""


def check_ports(process: Process) -> None:
    """Raise `PortBusy`, naming the owner and the setting that changes the port, unless all its ports are free."""
    for setting, port in process.ports.items():
        if not is_free(process.probe.host, port):
            raise PortBusy(
                f"{process.name} cannot start: port {port} is in use by {owner(port)};"
                f" stop that or set {setting} to a free port."
            )


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError:
            return False
    return True


def owner(port: int) -> str:
    """Name and id of the process that listens on `port`, as far as this user may know it."""
    try:
        pids = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        }
        for pid in pids - {None}:
            return f"{psutil.Process(pid).name()} (process {pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return "a process of another user"
