"""Errors that a user can cause and correct. Their text is one line: what is wrong, where, and what to do next."""


class UserError(Exception):
    """A mistake that the user can correct. Commands print only its text and exit with code 2."""


class MissingError(UserError):
    """Something is not on this machine. Callers that can work without it catch this error."""


def one_of(names: object, limit: int = 12) -> str:
    """Return *names*, sorted and joined by commas, for an error message; after *limit* names only the number left is given."""
    listed = sorted(str(name) for name in names)  # type: ignore[attr-defined]  # any iterable of names
    more = f" … ({len(listed) - limit} more)" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of the text of *error*, or the name of its class if it has no text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
