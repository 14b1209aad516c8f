"""Request parameters: the three kinds of body give the same struct, and nothing that is sent breaks the reader."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from api.body import MAX_PARAMETERS, nest, read_body, read_query, to_struct
from api.errors import ApiError
from api.responses import error_response, json_response


class Source(msgspec.Struct):
    privacy: str | None = None


class Form(msgspec.Struct):
    status: Annotated[str, msgspec.Meta(max_length=20)] = ""
    media_ids: list[str] = []
    sensitive: bool | None = None
    number: int = 0
    source: Source | None = None


EVERYTHING = {
    "status": "é 猫",
    "media_ids": ["a", "b"],
    "sensitive": True,
    "number": 7,
    "source": {"privacy": "direct"},
}
PAIRS = [
    ("status", "é 猫"),
    ("media_ids[]", "a"),
    ("media_ids[]", "b"),
    ("sensitive", "true"),
    ("number", "7"),
    ("source[privacy]", "direct"),
]


@pytest.fixture
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            if request.method == "GET":
                return json_response(read_query(request, Form))
            return json_response(await read_body(request, Form))
        except ApiError as error:
            return error_response(error)

    app = web.Application(client_max_size=10_000)
    app.router.add_route("*", "/", answer)
    async with TestClient(TestServer(app)) as running:
        yield running


async def sent(client: TestClient[web.Request, web.Application], **options: Any) -> tuple[int, Any]:
    async with client.post("/", **options) as response:
        text = await response.text()
        return response.status, msgspec.json.decode(text) if text.startswith("{") else text


async def test_json_urlencoded_multipart_and_query_give_the_same(client: TestClient[Any, Any]) -> None:
    multipart = FormData(PAIRS, default_to_multipart=True)
    assert (await sent(client, json=EVERYTHING))[1] == EVERYTHING
    assert (await sent(client, data=PAIRS))[1] == EVERYTHING
    assert (await sent(client, data=multipart))[1] == EVERYTHING
    assert (await sent(client, params=PAIRS))[1] == EVERYTHING
    async with client.get("/", params=PAIRS) as response:
        assert await response.json() == EVERYTHING


async def test_the_body_wins_over_the_query(client: TestClient[Any, Any]) -> None:
    _, form = await sent(client, params={"status": "query", "number": "1"}, json={"status": "body"})
    assert (form["status"], form["number"]) == ("body", 1)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"status": ', "application/json", 400),
        (b"[1, 2]", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b'{"status": "\xff"}', "application/json", 400),
        (b'{"status": "\\ud800"}', "application/json", 400),
        (b"[" * 9_000, "application/json", 400),
        (b'{"status": "a\\u0000b"}', "application/json", 400),
        (b'{"status": 5}', "application/json", 422),
        (b'{"media_ids": {"a": 1}}', "application/json", 422),
        (b'{"sensitive": "perhaps"}', "application/json", 422),
        (b'{"status": "012345678901234567890"}', "application/json", 422),
        (b'{"number": 1e400}', "application/json", 400),
        (b"status=%ff", "application/x-www-form-urlencoded", 400),
        (b"status=\xff", "application/x-www-form-urlencoded", 400),
        (b"status=a%00b", "application/x-www-form-urlencoded", 400),
        (b"status=a&status[x]=b", "application/x-www-form-urlencoded", 400),
        (b"a[b][c][d][e]=1", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * (MAX_PARAMETERS + 1)), "application/x-www-form-urlencoded", 400),
        (b"nonsense", "multipart/form-data; boundary=x", 400),
        (b"nonsense", "multipart/form-data", 400),
        (b"<a/>", "application/xml", 415),
    ],
)
async def test_a_body_that_cannot_be_used_is_a_clear_error(
    client: TestClient[Any, Any], body: bytes, content_type: str, status: int
) -> None:
    got, answer = await sent(client, data=body, headers={"Content-Type": content_type})
    assert got == status
    assert set(answer) == {"error"}
    assert answer["error"]


async def test_a_body_above_the_limit_is_refused(client: TestClient[Any, Any]) -> None:
    got, _ = await sent(client, data=b"status=" + b"x" * 20_000)
    assert got == 413


async def test_a_file_is_refused_by_name(client: TestClient[Any, Any]) -> None:
    form = FormData()
    form.add_field("avatar", b"\x89PNG", filename="me.png")
    got, answer = await sent(client, data=form)
    assert got == 422
    assert "avatar" in answer["error"]


def test_numbered_objects_keep_their_numbers() -> None:
    pairs = [("fields_attributes[0][name]", "a"), ("fields_attributes[1][name]", "b")]
    assert nest(pairs) == {"fields_attributes": {"0": {"name": "a"}, "1": {"name": "b"}}}


names = st.text(alphabet="ab[]", max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.text(max_size=3)), max_size=8))
def test_any_form_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        to_struct(nest(pairs), Form)
    except ApiError as error:
        assert error.status in (400, 422)  # noqa: PT017


def test_objects_in_an_array_begin_anew_where_a_name_comes_again() -> None:
    pairs = [
        ("words[][word]", "a"),
        ("words[][whole]", "1"),
        ("words[][word]", "b"),
        ("words[][tags][]", "x"),
        ("words[][tags][]", "y"),
    ]
    assert nest(pairs) == {"words": [{"word": "a", "whole": "1"}, {"word": "b", "tags": ["x", "y"]}]}


def test_an_array_of_objects_is_nothing_else_at_once() -> None:
    with pytest.raises(ApiError, match="both"):
        nest([("words[a]", "1"), ("words[][word]", "b")])
