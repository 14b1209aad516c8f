"""The Redis protocol's request side and what error replies ask for."""

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.redis_connection import Address
from fanline.redis_topology import Topology, parse_cluster_slots
from fanline.resp import Fault, bulk, fault_of, key_of, pack, redirection, unpack


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=5))
def test_a_payload_is_what_a_redis_parser_reads_and_comes_apart_again(commands: list[list[bytes]]) -> None:
    payload = b"".join(pack(*arguments) for arguments in commands)
    reader = hiredis.Reader()
    reader.feed(payload)
    assert [reader.gets() for _ in commands] == commands
    assert unpack(payload) == commands


def test_a_bulk_string_is_the_argument_of_a_packed_command() -> None:
    assert pack(b"PING", b"a\r\nb") == b"*2\r\n" + bulk(b"PING") + bulk(b"a\r\nb")


@pytest.mark.parametrize("payload", [b"PING\r\n", b"*1\r\n$4\r\nPIN", b"*2\r\n$4\r\nPING\r\n", b"*1\r\n$4\r\nPINGxx"])
def test_a_payload_that_is_cut_or_no_array_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="payload"):
        unpack(payload)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ([b"GET", b"k"], b"k"),
        ([b"rpushx", b"k", b"v"], b"k"),
        ([b"FCALL", b"f", b"1", b"k", b"v"], b"k"),
        ([b"FCALL_RO", b"f", b"0"], None),
        ([b"PING"], None),
        ([b"FUNCTION", b"LOAD", b"code"], None),
    ],
)
def test_the_key_of_a_command_decides_its_node(command: list[bytes], key: bytes | None) -> None:
    assert key_of(command) == key


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("MOVED 3999 127.0.0.1:6381", Fault.MOVED),
        ("ASK 3999 127.0.0.1:6381", Fault.ASK),
        ("ERR Function not found", Fault.FUNCTION_MISSING),
        ("LOADING Redis is loading the dataset in memory", Fault.WAIT),
        ("CLUSTERDOWN The cluster is down", Fault.WAIT),
        ("OOM command not allowed when used memory > 'maxmemory'.", Fault.WAIT),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Fault.DEFECT),
        ("ERR unknown command 'NOPE'", Fault.DEFECT),
    ],
)
def test_an_error_reply_says_what_to_do(message: str, fault: Fault) -> None:
    assert fault_of(message) is fault


def test_a_redirection_names_an_address_even_an_ipv6_one_or_only_a_port() -> None:
    assert redirection("MOVED 1 10.0.0.1:6381") == ("10.0.0.1", 6381)
    assert redirection("ASK 1 fd00::1:6381") == ("fd00::1", 6381)
    assert redirection("MOVED 1 :6381") == ("", 6381)


def nodes(*ports: int) -> list[tuple[int, int, Address]]:
    share = 16384 // len(ports)
    return [
        (share * i, 16383 if i == len(ports) - 1 else share * (i + 1) - 1, Address("h", port))
        for i, port in enumerate(ports)
    ]


def test_keys_with_one_hash_tag_are_on_one_node() -> None:
    topology = Topology(Address("h", 1), cluster=True)
    topology.update(nodes(1, 2, 3))
    assert len({topology.node_of(b"%s:{tag}" % name) for name in (b"a", b"b", b"c")}) == 1
    assert {topology.node_of(b"k%d" % i) for i in range(100)} == {0, 1, 2}


def test_a_nodes_number_passes_to_its_successor_and_the_others_keep_theirs() -> None:
    topology = Topology(Address("h", 1), cluster=True)
    topology.update(nodes(1, 2, 3))
    before = [topology.node_of(b"k%d" % i) for i in range(100)]
    assert topology.update(nodes(1, 9, 3))
    assert topology.masters == [Address("h", 1), Address("h", 9), Address("h", 3)]
    assert [topology.node_of(b"k%d" % i) for i in range(100)] == before
    assert not topology.update(nodes(1, 9, 3))


def test_a_node_that_lost_all_its_slots_is_no_master_any_more() -> None:
    topology = Topology(Address("h", 1), cluster=True)
    topology.update(nodes(1, 2, 3))
    topology.update(nodes(1, 2))
    assert [topology.is_master(number) for number in range(3)] == [True, True, False]


def test_a_master_without_a_host_is_the_one_that_answered() -> None:
    reply = [[0, 100, [b"", 7000, b"id"], [b"replica", 7001, b"id"]], [101, 16383, [b"other", 7002, b"id"]]]
    assert parse_cluster_slots(reply, Address("asked", 7000)) == [
        (0, 100, Address("asked", 7000)),
        (101, 16383, Address("other", 7002)),
    ]
