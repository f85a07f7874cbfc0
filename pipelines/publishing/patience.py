"""How publishing bears with the Hub: failures that pass are tried again, a few times, and any other is one line that says what to do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx2
import stamina
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # loaded when it is first used
from huggingface_hub.utils.tqdm import disable_progress_bars

from builders.errors import UserError, first_line

ATTEMPTS = 5
LONGEST_S = 300  # the wait that the Hub may ask for; a longer one is left to the person
AGAIN = "run the same command again: what has arrived is not sent twice"
REFUSED = {
    401: "the Hub does not know your token; run `hf auth login`, or set HF_TOKEN to a token that may write",
    403: "your token may not write there; use one with write access to {owner}, or name another --repo",
    404: "there is no such dataset repository, or your token may not see it; correct --repo, or run `hf auth login`",
    412: "somebody committed to it meanwhile, so nothing was published; look at what is new there, then run the same command again",
    413: "the Hub finds the commit too large; publish to a branch in parts, or ask the Hub for more",
}


def cause_of(error: BaseException) -> BaseException:
    """Return what the client's threads failed with, which it wraps in a RuntimeError; any other error as it is."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def passing(error: Exception) -> bool | float:
    """Return whether a failure may pass: how many seconds the Hub asks to wait, if it does, else yes or no."""
    cause = cause_of(error)
    if not isinstance(cause, HfHubHTTPError):
        return isinstance(cause, httpx2.TransportError)
    status = cause.response.status_code
    if status not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    asked = asked_wait(cause.response.headers)
    return True if asked is None else float(asked) if asked <= LONGEST_S else False


def asked_wait(headers: httpx2.Headers) -> int | None:
    """Return for how many seconds the Hub asks to be left alone, by either of the headers in which it says so."""
    limit, after = parse_ratelimit_headers(headers), headers.get("Retry-After", "")
    if limit is not None and limit.remaining == 0:
        return int(limit.reset_in_seconds)
    return int(after) if after.isdigit() else None


# Calls that may be repeated: each looks at what is on the Hub before it changes anything.
patient = stamina.retry(on=passing, attempts=ATTEMPTS, timeout=None, wait_initial=1.0, wait_max=30.0)


def _say(details: stamina.instrumentation.RetryDetails) -> None:
    said = first_line(cause_of(details.caused_by))
    print(f"the Hub did not take it ({said}); trying again in {details.wait_for:.0f} s", file=sys.stderr)


@contextmanager
def publishing_errors(repo: str) -> Iterator[None]:
    """Say on standard error when something is tried again, and raise UserError for every failure of the Hub that remains."""
    stamina.instrumentation.set_on_retry_hooks([_say])
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except (HfHubHTTPError, httpx2.TransportError, RuntimeError) as error:
        told = explained(repo, cause_of(error))
        if told is None:
            raise
        raise UserError(f"{repo}: {told}") from error


def explained(repo: str, error: BaseException) -> str | None:
    """Return what a failure means and what to do next; None for one that is not the Hub's."""
    if isinstance(error, HfHubHTTPError):
        status = HTTPStatus.NOT_FOUND if isinstance(error, RepositoryNotFoundError) else error.response.status_code
        if status in REFUSED:
            return REFUSED[status].format(owner=repo.split("/")[0])
        if not passing(error) and (wait := asked_wait(error.response.headers)):
            return f"the Hub asks to wait for {wait} s; {AGAIN}"
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
            return f"the Hub refuses it ({status}: {error.server_message or first_line(error)}); correct that, and run the command again"
        return f"the Hub still answers {status} after {ATTEMPTS} attempts; {AGAIN}"
    if isinstance(error, httpx2.TransportError):
        return f"the connection to the Hub broke {ATTEMPTS} times ({first_line(error)}); {AGAIN}"
    if type(error).__module__.startswith("hf_xet"):
        return f"the upload broke ({first_line(error)}); {AGAIN}"
    return None
