"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        message: what is wrong and what to do; never a text of the request.
        kind: OpenAI's `type`.
        param: the field of the request.
        code: a word for programs.
        retry_after: seconds after which a client may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.retry_after = param, code, retry_after

    def body(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers of the reply."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class ClientLeftError(Exception):
    """The client closed the connection, so nobody reads a reply."""


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request cannot be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def overloaded(seconds: int) -> ApiError:
    """429: too many tokens wait already."""
    return ApiError(
        429,
        f"too many tokens are waiting; try again in {seconds} s",
        kind="rate_limit_error",
        code="queue_full",
        retry_after=seconds,
    )


def unavailable(message: str, code: str, retry_after: int = 1) -> ApiError:
    """503: not ready yet, or shutting down."""
    return ApiError(503, message, kind="server_error", code=code, retry_after=retry_after)


def expired(milliseconds: int) -> ApiError:
    """504: the request's time was over before its vectors were there."""
    return ApiError(
        504,
        f"not finished within {milliseconds} ms; send fewer texts at once, or a larger X-Timeout-Ms",
        kind="timeout_error",
        code="deadline_exceeded",
    )


def not_encoded(index: int) -> ApiError:
    """500: the model fails on one text."""
    return ApiError(
        500,
        f"input[{index}]: the model computes no vector for it; send the others without it",
        kind="server_error",
        param=f"input[{index}]",
        code="not_encoded",
    )
