"""`python -m api`: serve the API, all boundaries or some."""

import argparse
import sys

from api.app import BOUNDARIES
from api.server import serve
from fanline.errors import FanlineError
from fanline.settings import get_settings


def main() -> int:
    """Serve until a signal; 0 after a clean end."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve Fanline's REST API.")
    parser.add_argument("--only", default="", help=f"boundaries to serve, comma-separated: {', '.join(BOUNDARIES)}")
    parser.add_argument("--host", help="address to bind to (FANLINE_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (FANLINE_API_PORT)")
    arguments = parser.parse_args()
    try:
        serve(get_settings(), filter(None, arguments.only.split(",")), arguments.host, arguments.port)
    except FanlineError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the one sentence for whoever started it
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
