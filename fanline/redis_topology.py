"""Which Redis node has which key: one stand-alone server, or the masters of a Redis Cluster."""

from collections.abc import Callable, Iterable
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from fanline.redis_connection import Address

SlotRanges = list[tuple[int, int, Address]]


def parse_cluster_slots(reply: list[Any], answered_by: Address) -> SlotRanges:
    """The master of each slot range in a reply to CLUSTER SLOTS; an unnamed host is the one that answered."""
    ranges: SlotRanges = []
    for first, last, master, *_replicas in reply:
        host = (master[0] or b"").decode()
        ranges.append((first, last, Address(host if host not in ("", "?") else answered_by.host, master[1])))
    return ranges


class Topology:
    """Numbers the masters from 0 and finds a key's number.

    A number stays with its master; when that master goes (a failover), its number passes to the node that took its
    first slot, so that payloads prepared for the number mostly still reach the right node. Where they do not, the
    node answers MOVED.
    """

    def __init__(self, seed: Address, *, cluster: bool) -> None:
        self.cluster = cluster
        self.masters: list[Address] = [seed]
        self.node_of: Callable[[bytes], int] = self._node_of_key if cluster else _first
        self._seed = seed
        self._slots = [0] * REDIS_CLUSTER_HASH_SLOTS

    def addresses(self) -> Iterable[Address]:
        """Whom to ask for the topology, best first."""
        return dict.fromkeys([*self.masters, self._seed])

    def update(self, ranges: SlotRanges) -> bool:
        """Take over what CLUSTER SLOTS said; returns whether any master came or went."""
        present = {address for _, _, address in ranges}
        newcomers = [address for _, _, address in ranges if address not in self.masters]
        newcomers = list(dict.fromkeys(newcomers))
        changed = bool(newcomers)
        owner = {slot: address for first, last, address in ranges for slot in range(first, last + 1)}
        for index, old in enumerate(self.masters):
            if old in present or not newcomers:
                continue
            heir = next((owner[s] for s in range(len(self._slots)) if self._slots[s] == index and s in owner), None)
            successor = heir if heir in newcomers else newcomers[0]
            newcomers.remove(successor)
            self.masters[index] = successor
        self.masters += newcomers
        index_of = {address: index for index, address in enumerate(self.masters)}
        for slot, address in owner.items():
            self._slots[slot] = index_of[address]
        return changed

    def is_master(self, index: int) -> bool:
        """Whether the number still belongs to a node that has slots."""
        return not self.cluster or index in self._slots

    def _node_of_key(self, key: bytes) -> int:
        return self._slots[key_slot(key)]


def _first(_key: bytes) -> int:
    return 0
