"""The Redis protocol's request side, by hand: bytes that are joined in bulk and sent as they are.

A client library makes an object, a lock and a parse out of every command (5 us and more); a fan-out of a post to a
thousand timelines joins a thousand prepared byte strings instead. Replies are parsed by hiredis.
"""

from enum import Enum

# Commands whose key is not their first argument: FCALL function numkeys key ..., EVALSHA script numkeys key ...
_KEY_AFTER_COUNT = frozenset([b"FCALL", b"FCALL_RO", b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO"])
# Commands that name no key: any node may answer.
_KEYLESS = frozenset([b"PING", b"TIME", b"DBSIZE", b"INFO", b"FUNCTION", b"SCAN", b"FLUSHALL", b"FLUSHDB", b"ECHO"])


def pack(*arguments: bytes) -> bytes:
    """One command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


def bulk(argument: bytes) -> bytes:
    """One argument of a command, for callers that keep the rest of it prepared."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def unpack(payload: bytes) -> list[list[bytes]]:
    """The commands in a payload made by `pack`, in order; needed only when some must be sent elsewhere.

    Raises ValueError when the payload is not a whole number of commands.
    """
    commands: list[list[bytes]] = []
    at = 0
    while at < len(payload):
        count, at = _number(payload, at, b"*")
        arguments: list[bytes] = []
        for _ in range(count):
            length, at = _number(payload, at, b"$")
            if payload[at + length : at + length + 2] != b"\r\n":
                raise ValueError("the payload ends within a command")
            arguments.append(payload[at : at + length])
            at += length + 2
        commands.append(arguments)
    return commands


def key_of(arguments: list[bytes]) -> bytes | None:
    """The key that decides which node of a cluster runs the command; None when it names none."""
    name = arguments[0].upper()
    if name in _KEY_AFTER_COUNT:
        return arguments[3] if int(arguments[2]) > 0 else None
    if name in _KEYLESS or len(arguments) < 2:
        return None
    return arguments[1]


class Fault(Enum):
    """What an error reply asks its client to do."""

    MOVED = "another node has the slot: learn the topology again and send the command there"
    ASK = "the slot is moving: send the command to the named node, after ASKING"
    FUNCTION_MISSING = "the server has lost its functions: load them and send the command again"
    WAIT = "the server cannot answer now: send the command again later"
    DEFECT = "the command is wrong: no repetition helps"


# LOADING: reads its data back. TRYAGAIN, CLUSTERDOWN: slots move or a failover runs. READONLY, MASTERDOWN: a replica
# was asked. BUSY: a script runs. OOM, MISCONF, NOREPLICAS: an operator has to act, and a flow that waits loses nothing.
_WAIT = frozenset(
    ["LOADING", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "BUSY", "OOM", "MISCONF", "NOREPLICAS"]
)


def fault_of(message: str) -> Fault:
    """What to do about an error reply, told by its first word."""
    word = message.split(" ", 1)[0]
    if word == "MOVED":
        return Fault.MOVED
    if word == "ASK":
        return Fault.ASK
    if word in _WAIT:
        return Fault.WAIT
    if "Function not found" in message:
        return Fault.FUNCTION_MISSING
    return Fault.DEFECT


def redirection(message: str) -> tuple[str, int]:
    """The address in `MOVED 3999 127.0.0.1:6381` or `ASK ...`; the host is empty when it is the answering node's."""
    host, _, port = message.split(" ")[2].rpartition(":")
    return host, int(port)


def _number(payload: bytes, at: int, kind: bytes) -> tuple[int, int]:
    end = payload.find(b"\r\n", at)
    if end < 0 or payload[at : at + 1] != kind:
        raise ValueError(f"expected {kind.decode()} at byte {at} of the payload")
    return int(payload[at + 1 : end]), end + 2
