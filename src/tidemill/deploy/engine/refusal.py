"""Answers that are no predictions, as one error type with an HTTP status.

======  ====================  ================================================================================
status  code                  when
======  ====================  ================================================================================
400     bad_request           the HTTP, the JSON or a tensor can't be read
400     invalid_input         a value does not fit the model's schema: column, row, what is expected
404     not_found             no such path, model or version
405     method_not_allowed    the path wants another method
408     too_slow              head or body did not come in time
411…431 (named after them)    length, size of body, media type, size of head
422     key_reused            an idempotency key came back with another body
429     overloaded            it can't be answered before its deadline: try later
500     model_failed          the model failed on this request, or its workers died of it
503     unavailable           draining, no connection free, too many bodies under way, or a model that can't start now
504     too_late              its deadline passed while it waited
507     no_room               the model does not fit into the memory that may be used
======  ====================  ================================================================================
"""

from __future__ import annotations

from tidemill.core.errors import NotFoundError, TidemillError

_CODES = {401: "unauthorised", 403: "forbidden", 404: "not_found", 429: "overloaded", 503: "unavailable"}


class Refusal(TidemillError):
    """A request that is answered without a prediction.

    Parameters
    ----------
    status : int
        HTTP status.
    code : str
        For programs; see the table above.
    message : str
        For people.
    retry_after_s : float, optional
        When it may be tried again.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


def bad_request(message: str) -> Refusal:
    """The HTTP, the JSON or a tensor can't be read."""
    return Refusal(400, "bad_request", message)


def invalid_input(message: str) -> Refusal:
    """A value does not fit the model."""
    return Refusal(400, "invalid_input", message)


def as_refusal(error: TidemillError, status: int = 400) -> Refusal:
    """Any error of ours as an answer; ``status`` is for those that say nothing of it.

    Examples
    --------
    >>> as_refusal(NotFoundError("There is no such model.")).status
    404
    """
    if isinstance(error, Refusal):
        return error
    status = int(getattr(error, "status", 404 if isinstance(error, NotFoundError) else status))
    code = str(getattr(error, "code", _CODES.get(status, "failed")))
    return Refusal(status, code, str(error), retry_after_s=getattr(error, "retry_after_s", None))


def overloaded(wait_ms: float) -> Refusal:
    """It can't be answered before its deadline."""
    return Refusal(
        429,
        "overloaded",
        f"It can't be answered before its deadline: about {wait_ms:,.0f} ms of work wait.",
        retry_after_s=max(0.05, wait_ms / 1e3),
    )


def too_late() -> Refusal:
    """Its deadline is over."""
    return Refusal(504, "too_late", "Its deadline passed while it waited.", retry_after_s=0.5)
