"""The bytes that push entries to timelines."""

from uuid import UUID

from fanline.resp import unpack
from readmodels.timelines import push, push_prefix, pushes


def test_joined_pushes_are_the_same_bytes_as_one_by_one() -> None:
    viewers = [UUID(int=number) for number in range(1, 4)]
    prefixes = [push_prefix(viewer.bytes) for viewer in viewers]
    for entries in ([b"12345678"], [b"12345678", b"1234567812345678"]):
        joined = pushes(prefixes, entries)
        assert joined == b"".join(push(viewer, *entries).data for viewer in viewers)
        assert len(unpack(joined)) == 3
