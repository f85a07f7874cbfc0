"""The one error a person can cause: what is wrong, where, and what to do next, in one line."""


class UserError(Exception):
    """A mistake that its maker can mend; commands print its text alone and exit with 2."""


class MissingError(UserError):
    """Something that is not on this machine and that one may be able to do without."""


def one_of(names: object, limit: int = 12) -> str:
    """Return *names* as a readable list for an error, cut after *limit* entries."""
    listed = sorted(str(name) for name in names)  # type: ignore[attr-defined]  # any iterable of names
    more = f" … ({len(listed) - limit} more)" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def first_line(error: BaseException) -> str:
    """Return the first line of what *error* says, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
