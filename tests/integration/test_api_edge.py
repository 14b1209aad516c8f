"""What every request passes: errors in one shape, limits, CORS, health, metrics, and a clean end."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from tests.conftest import CHECKOUT, Stack
from tests.integration.api_world import Api, running_api

MULTIPART = b'--b\r\nContent-Disposition: form-data; name="status"\r\n\r\n'


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/accounts/1", 404),
        ("GET", "/api/v1/accounts/%00", 404),
        ("GET", "/api/v1/accounts/%ff%fe/statuses", 404),
        ("GET", "/api/v1/statuses/0", 404),
        ("GET", "/api/v1/statuses/x", 404),
        ("GET", "/api/v1/statuses/99999999999999999999999", 404),
        ("PUT", "/api/v1/apps", 405),
        ("DELETE", "/api/v1/timelines/home", 405),
        ("GET", "/api/v1/timelines/home", 401),
        ("GET", "/api/v1/timelines/public?limit=x", 400),
        ("GET", "/api/v1/timelines/public?max_id=x", 400),
        ("GET", "/api/v1/timelines/public?only_media=perhaps", 422),
        ("GET", "/api/v1/timelines/public?local=%ff", 400),
        ("GET", "/api/v1/accounts/lookup?acct=a%00", 400),
    ],
)
async def test_what_cannot_be_served_is_an_error_in_the_one_shape(
    api: Api, method: str, path: str, status: int
) -> None:
    (await api.request(method, path)).fails(status)


async def test_a_slash_at_the_end_of_an_address_changes_nothing(api: Api) -> None:
    assert (await api.get("/api/v2/instance/")).ok() == (await api.get("/api/v2/instance")).ok()
    ann = await api.person("ann")
    assert (await api.get(f"/api/v1/accounts/{ann.id}/")).ok()["id"] == ann.id


async def test_a_tag_of_any_bytes_is_answered(api: Api) -> None:
    for tag in ("%00", "%ff", "%ED%A0%80", "%F0%9F%92%A9", "a%2Fb", "x" * 3_000):
        answer = await api.get(f"/api/v1/timelines/tag/{tag}")
        assert answer.status == 200 or answer.fails(answer.status)
        assert answer.status < 500


async def test_an_error_of_the_method_names_those_that_are_allowed(api: Api) -> None:
    answer = await api.request("PUT", "/api/v1/apps")
    assert answer.fails(405)
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("start", "end", "kind"),
    [
        (b'{"status": "', b'"}', "application/json"),
        (b"status=", b"", "application/x-www-form-urlencoded"),
        (
            b'--b\r\nContent-Disposition: form-data; name="status"\r\n\r\n',
            b"\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
    ],
)
async def test_a_body_above_one_mebibyte_is_refused(api: Api, start: bytes, end: bytes, kind: str) -> None:
    ann = await api.person("ann")
    headers = {"Content-Type": kind}
    too_much = io.BytesIO(start + b"x" * (1 << 20) + end)
    (await api.post("/api/v1/statuses", ann, data=too_much, headers=headers)).fails(413)
    just_fits = io.BytesIO(start + b"x" * ((1 << 20) - len(start) - len(end)) + end)
    (await api.post("/api/v1/statuses", ann, data=just_fits, headers=headers)).fails(422)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b'{"status": "\xff"}', "application/json"),
        (b"status=%ff", "application/x-www-form-urlencoded"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
    ],
)
async def test_a_broken_body_is_a_400_and_posts_nothing(api: Api, body: bytes, kind: str) -> None:
    ann = await api.person("ann")
    (await api.post("/api/v1/statuses", ann, data=body, headers={"Content-Type": kind})).fails(400)
    assert (await api.get(f"/api/v1/accounts/{ann.id}/statuses")).ok() == []


async def test_bytes_that_are_no_request_get_an_answer_and_break_nothing(api: Api) -> None:
    url = api._server.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"\x00\xff nonsense\r\n\r\n")
    await writer.drain()
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert (await api.get("/health/live")).ok() == {"status": "ok"}


async def test_the_limit_is_told_counted_a_person_and_shared_by_processes(api: Api, migrated: Stack) -> None:
    ann, bob = await api.people("ann", "bob")
    await api.context.limiter.exchange()
    used = 1  # looking at herself, after signing up
    limit = used + 4
    async with (
        running_api(migrated.settings, rate_limit=limit) as one,
        running_api(migrated.settings, rate_limit=limit) as two,
    ):
        first = await one.get("/api/v1/custom_emojis", ann)
        assert first.headers["X-RateLimit-Limit"] == str(limit)
        assert datetime.fromisoformat(first.headers["X-RateLimit-Reset"]).tzinfo is not None
        await one.get("/api/v1/custom_emojis", ann)
        await one.context.limiter.exchange()
        counted = await one.get("/api/v1/custom_emojis", ann)
        assert counted.headers["X-RateLimit-Remaining"] == "1"
        await one.context.limiter.exchange()
        last = await two.get("/api/v1/custom_emojis", ann)  # this process has not heard of the others
        assert last.status == 200
        await two.context.limiter.exchange()
        refused = await two.get("/api/v1/custom_emojis", ann)
        assert refused.fails(429)
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert (await two.get("/api/v1/custom_emojis", bob)).status == 200
        assert (await two.get("/health/live")).status == 200


async def test_browsers_of_other_origins_may_call(api: Api) -> None:
    asked = {
        "Origin": "https://client.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    preflight = await api.request("OPTIONS", "/api/v1/statuses", headers=asked)
    assert preflight.status == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    failed = await api.get("/api/v1/timelines/home")
    assert failed.headers["Access-Control-Allow-Origin"] == "*"
    assert "Link" in failed.headers["Access-Control-Expose-Headers"]


async def test_health_names_each_dependency(api: Api) -> None:
    report = (await api.get("/health/ready")).ok()
    assert report["status"] == "ok"
    assert {name: part["status"] for name, part in report["dependencies"].items()} == {
        "database": "ok",
        "redis": "ok",
        "registry": "ok",
    }


async def test_without_its_database_a_process_says_that_it_cannot_serve(migrated: Stack) -> None:
    async with running_api(migrated.settings) as api:
        await api.context.database.pool.close()
        answer = await api.get("/health/ready")
        assert answer.status == 503
        assert answer.json["status"] == "unavailable"
        (await api.get("/api/v1/timelines/public")).fails(503)


async def test_metrics_count_requests_by_route(api: Api) -> None:
    ann = await api.person("ann")
    await api.get(f"/api/v1/accounts/{ann.id}")
    text = (await api.get("/metrics")).body.decode()
    assert 'fanline_api_seconds_count{method="GET",route="/api/v1/accounts/{id}",status="200"}' in text
    assert ann.id not in text


async def test_the_instance_says_what_clients_parse(api: Api) -> None:
    new, old = (await api.get("/api/v2/instance")).ok(), (await api.get("/api/v1/instance")).ok()
    assert new["version"] == old["version"] == "4.3.0 (compatible; Fanline 0.1.0)"
    assert old["uri"] == new["domain"] == api.context.domain
    assert "://" not in old["uri"]
    assert new["configuration"]["statuses"]["max_characters"] == 5_000
    picture = await api.get(new["thumbnail"]["url"])
    assert picture.body.startswith(b"\x89PNG")


async def test_a_subset_serves_its_boundaries_alone(migrated: Stack) -> None:
    port = free_port()
    with process_of(migrated, port, "--only", "instance,timelines") as process:
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                await listening(session, process)
                statuses = {
                    path: await status_of(session, path) for path in ("/api/v2/instance", "/api/v1/timelines/home")
                }
                assert statuses == {"/api/v2/instance": 200, "/api/v1/timelines/home": 401}
                assert await status_of(session, "/api/v1/accounts/lookup") == 404
        finally:
            process.terminate()
        _, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert {"method", "path", "route", "status", "ms", "timestamp", "component", "level"} <= set(requests[0])
    assert lines[-1]["event"] == "the api has ended"


async def test_a_request_under_way_is_answered_before_the_process_ends(migrated: Stack) -> None:
    port = free_port()
    with process_of(migrated, port) as process:
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                await listening(session, process)
                begun = asyncio.Event()

                async def slowly() -> AsyncIterator[bytes]:
                    begun.set()
                    yield b'{"client_name": "slow",'
                    while await status_or_none(session, "/health/live") is not None:
                        pass  # until the process no longer listens
                    yield b'"redirect_uris": "urn:ietf:wg:oauth:2.0:oob"}'

                headers = {"Content-Type": "application/json"}
                # The body is sent once the server has answered 100, which is once it has the request.
                slow_request = status_of(session, "/api/v1/apps", data=slowly(), headers=headers, expect100=True)
                posting = asyncio.create_task(slow_request)
                await begun.wait()
                os.kill(process.pid, signal.SIGTERM)
                assert await posting == 200
        finally:
            process.terminate()
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 0


async def test_an_address_that_is_taken_is_one_plain_sentence(migrated: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "api", "--port", port],
            env=migrated.environment,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def process_of(stack: Stack, port: int, *arguments: str) -> subprocess.Popen[bytes]:
    """`python -m api` on the stack."""
    return subprocess.Popen(
        [sys.executable, "-m", "api", "--port", str(port), *arguments],
        env=stack.environment,
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def status_of(session: aiohttp.ClientSession, path: str, **options: Any) -> int:
    method = "POST" if "data" in options else "GET"
    async with session.request(method, path, **options) as response:
        return response.status


async def status_or_none(session: aiohttp.ClientSession, path: str) -> int | None:
    try:
        # A connection of its own: the kept ones are served until the end.
        return await status_of(session, path, headers={"Connection": "close"})
    except aiohttp.ClientError:
        return None


async def listening(session: aiohttp.ClientSession, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(60):
        while await status_or_none(session, "/health/live") is None:
            assert process.poll() is None
