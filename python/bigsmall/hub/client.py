"""The Hub's client, and its errors in words of one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..extras import require


def client() -> Any:
    """The package `huggingface_hub`. Raises ModuleNotFoundError that names what to install."""
    return require("huggingface_hub", "hf", "a Hub repository")


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """What goes wrong with a repository meanwhile, as an OSError with the repository as its file name.

    FileNotFoundError for what is not there, PermissionError for what needs a token, ConnectionError where the Hub cannot be reached.
    """
    client()
    try:
        yield
    except Exception as error:
        known = _as_os_error(error, repo_id)
        if known is None:
            raise
        raise known from error


def _as_os_error(error: BaseException, repo_id: str) -> OSError | None:
    errors = client().errors
    for kind, known, number, message in (
        (errors.GatedRepoError, PermissionError, errno.EACCES, "access to the repository has to be asked for on the Hub first"),
        (
            errors.RepositoryNotFoundError,
            FileNotFoundError,
            errno.ENOENT,
            "no such repository on the Hub, or a private one",
        ),
        (errors.RevisionNotFoundError, FileNotFoundError, errno.ENOENT, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, FileNotFoundError, errno.ENOENT, "it is not in the Hub's cache, and the Hub cannot be reached"),
        (errors.EntryNotFoundError, FileNotFoundError, errno.ENOENT, "the repository lacks a file that is needed"),
        (errors.OfflineModeIsEnabled, ConnectionError, errno.ENETUNREACH, "the Hub is not asked while HF_HUB_OFFLINE is set"),
    ):
        if isinstance(error, kind):
            return known(number, message, repo_id)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        refused = status in (401, 403)
        return (PermissionError if refused else OSError)(errno.EACCES if refused else errno.EIO, f"the Hub answers {status}", repo_id)
    # The client's own HTTP package, whose name and classes depend on its release.
    if type(error).__module__.startswith(("httpx", "httpcore")):
        return ConnectionError(errno.ECONNABORTED, f"the connection to the Hub failed: {one_line(error)}", repo_id)
    # Uploads wrap what goes wrong.
    return _as_os_error(error.__cause__, repo_id) if isinstance(error, RuntimeError) and error.__cause__ is not None else None


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
