"""The pictures that stand for none: what `avatar` and `header` point to until somebody uploads one."""

import struct
import zlib

from aiohttp import web

routes = web.RouteTableDef()

_CACHE = {"Cache-Control": "public, max-age=86400"}


def plain_png(width: int, height: int, grey: int) -> bytes:
    """A picture of one shade of grey."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\x00" + bytes([grey]) * width) * height
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


AVATAR = plain_png(120, 120, 0x9A)
HEADER = plain_png(600, 200, 0xC8)


@routes.get("/avatars/original/missing.png")
async def avatar(_request: web.Request) -> web.Response:
    """The picture of somebody without one."""
    return web.Response(body=AVATAR, content_type="image/png", headers=_CACHE)


@routes.get("/headers/original/missing.png")
async def header(_request: web.Request) -> web.Response:
    """The header picture of somebody without one."""
    return web.Response(body=HEADER, content_type="image/png", headers=_CACHE)
