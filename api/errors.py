"""The API's one error shape: `{"error": "..."}`, with `error_description` where OAuth has it."""

from collections.abc import Mapping

from fanline.errors import FanlineError


class ApiError(FanlineError):
    """A request that cannot be served; `message` goes to the client as `error`."""

    def __init__(
        self,
        status: int,
        message: str,
        description: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.description = description
        self.headers = dict(headers or {})

    def body(self) -> dict[str, str]:
        """The JSON body."""
        body = {"error": self.message}
        if self.description is not None:
            body["error_description"] = self.description
        return body


def bad_request(message: str) -> ApiError:
    """400: the request cannot be read."""
    return ApiError(400, message)


def unauthorized(message: str = "The access token is invalid") -> ApiError:
    """401: there is no token, or it is not (or no longer) good."""
    return ApiError(401, message, headers={"WWW-Authenticate": f'Bearer realm="Fanline", error="{message}"'})


def forbidden(message: str = "This action is not allowed") -> ApiError:
    """403: known, but not allowed."""
    return ApiError(403, message)


def not_found(message: str = "Record not found") -> ApiError:
    """404: it does not exist, or not for this viewer."""
    return ApiError(404, message)


def unprocessable(message: str) -> ApiError:
    """422: readable, but a value cannot be used."""
    return ApiError(422, message)


def oauth_error(code: str, description: str, status: int = 400) -> ApiError:
    """An error of RFC 6749, section 5.2: `code` is one of its names."""
    return ApiError(status, code, description)
