"""The asyncio Redis client against real servers, and against sockets that behave badly."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.document_cache import DocumentCache
from api.redis_client import RedisAddress, RedisClient, RedisReplyError, RedisTimeout, RedisUnavailable, slot_of
from api.redis_tracking import RedisTracking
from benchmarks.servers import Valkey, free_port, valkey
from fanline.errors import ConfigurationError
from fanline.resp import pack
from readmodels.effects import Command, command

PING = Command(b"", pack(b"PING"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as running:
        yield running


@asynccontextmanager
async def client(url: str, timeout: float = 1.0) -> AsyncIterator[RedisClient]:  # noqa: ASYNC109
    opened = RedisClient(RedisAddress.from_url(url), timeout=timeout)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def bad_server(answer: bytes) -> AsyncIterator[str]:
    """Listens, and sends the same to everybody who asks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            if answer:
                writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def test_batches_of_concurrent_callers_get_their_own_replies_in_order(server: Valkey) -> None:
    async with client(server.url) as redis:
        await redis.execute([command(b"%d" % n, b"SET", b"v%d" % n) for n in range(100)])
        batches = [[command(b"%d" % ((n * k) % 100), b"GET") for k in range(7)] for n in range(100)]
        replies = await asyncio.gather(*map(redis.execute, batches))
        assert replies == [[b"v%d" % ((n * k) % 100) for k in range(7)] for n in range(100)]
        assert await redis.execute([]) == []


async def test_a_refused_command_raises_what_redis_said(server: Valkey) -> None:
    async with client(server.url) as redis:
        await redis.execute([command(b"list", b"RPUSH", b"x")])
        with pytest.raises(RedisReplyError, match="WRONGTYPE"):
            await redis.execute([command(b"list", b"GET"), PING])
        assert await redis.execute([PING]) == [b"PONG"]


async def test_a_cancelled_caller_does_not_disturb_the_others(server: Valkey) -> None:
    async with client(server.url) as redis:
        await redis.execute([PING])
        cancelled = asyncio.ensure_future(redis.execute([command(b"a", b"SET", b"1")]))
        other = asyncio.ensure_future(redis.execute([command(b"b", b"SET", b"2"), command(b"b", b"GET")]))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await other == [b"OK", b"2"]
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await redis.execute([PING]) == [b"PONG"]


async def test_a_server_that_keeps_silent_is_a_timeout_for_everybody_who_waits() -> None:
    async with bad_server(b"") as url, client(url, 0.2) as redis:
        async with asyncio.timeout(2):
            outcomes = await asyncio.gather(*(redis.execute([PING]) for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RedisTimeout] * 5


async def test_a_server_of_another_kind_is_named() -> None:
    async with bad_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url, client(url) as redis:
        with pytest.raises(RedisUnavailable, match="does not speak the Redis protocol"):
            await redis.execute([PING])


async def test_a_closed_port_is_named() -> None:
    port = free_port()
    async with client(f"redis://127.0.0.1:{port}") as redis:
        with pytest.raises(RedisUnavailable, match=str(port)):
            await redis.execute([PING])


async def test_a_wrong_password_is_refused_and_never_shown(tmp_path: Path) -> None:
    with valkey(tmp_path) as open_server:
        async with client(open_server.url) as redis:
            await redis.execute([Command(b"", pack(b"CONFIG", b"SET", b"requirepass", b"right"))])
        async with client(f"redis://:right@127.0.0.1:{open_server.port}/3") as redis:
            assert await redis.execute([PING]) == [b"PONG"]
        async with client(f"redis://:wrong@127.0.0.1:{open_server.port}") as redis:
            with pytest.raises(RedisUnavailable, match="WRONGPASS") as refused:
                await redis.execute([PING])
            assert "wrong@" not in str(refused.value)
            assert "wrong" not in repr(RedisAddress.from_url("redis://:wrong@host"))


@pytest.mark.parametrize("url", ["http://host", "redis://", "redis://host:port", "redis://host/x"])
def test_an_address_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisAddress.from_url(url)


def test_slots_are_those_of_the_cluster_specification() -> None:
    assert slot_of(b"123456789") == slot_of(b"foo{123456789}bar") == 0x31C3
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")


async def test_tracking_tells_changes_expiry_and_flushes_and_drops_all_when_it_is_lost(server: Valkey) -> None:
    async with client(server.url) as redis:
        cache = DocumentCache(1 << 20)
        tracking = RedisTracking(redis, [b"s:", b"v:"], cache)
        task = asyncio.create_task(tracking.run())
        try:
            async with asyncio.timeout(10):
                await tracking.live.wait()

                async def dropped(*commands: Command) -> None:
                    for key in (b"s:{1}", b"other"):
                        cache.keep(cache.announce([key]), key, b"copy", 4)
                    assert cache.get(b"s:{1}") == b"copy"
                    await redis.execute(commands)
                    while cache.get(b"s:{1}") is not None:  # noqa: ASYNC110 - nothing tells of a dropped key
                        await asyncio.sleep(0.001)

                await dropped(command(b"s:{1}", b"SET", b"new"))
                assert cache.get(b"other") == b"copy"
                await dropped(command(b"s:{1}", b"PEXPIRE", 1))
                await dropped(command(b"s:{1}", b"SET", b"x", b"PX", 5))
                await dropped(Command(b"", pack(b"FLUSHALL")))
                assert cache.get(b"other") is None
                await dropped(Command(b"", pack(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")))
                assert cache.get(b"other") is None
                await tracking.live.wait()
                await dropped(command(b"s:{1}", b"SET", b"new"))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not cache.live
