"""Files of a repository, read at offsets."""

import errno
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from .client import client, hub_errors

N_TRIES = 4
"""How often a range is asked for before its file is given up."""
FIRST_WAIT_S = 0.25
"""Before the second try; each further one is waited for twice as long."""


class RemoteFile:
    """A file of the Hub for `bigsmall.Reader`: every read is a request for a range of its bytes, and nothing is written to disk."""

    def __init__(
        self, repo_id: str, name: str, n_bytes: int, *, commit: str, token: str | bool | None = None, files: "Listing | None" = None
    ) -> None:
        hub = client()
        self.path = f"{repo_id}/{name}"
        self._folder, _, _ = name.rpartition("/")
        self._files, self._token = files, token
        self.n_bytes = n_bytes
        self._repo_id = repo_id
        self._url = hub.hf_hub_url(repo_id, name, revision=commit)
        self._headers = hub.utils.build_hf_headers(token=token)

    def read_at(self, offset: int, n_bytes: int) -> bytes:
        """That many bytes. Raises OSError, ConnectionError after some tries."""
        if n_bytes == 0:
            return b""
        last = offset + n_bytes - 1
        headers = {**self._headers, "Range": f"bytes={offset}-{last}"}
        wait_s = FIRST_WAIT_S
        for tries_left in range(N_TRIES - 1, -1, -1):
            try:
                with hub_errors(self.path):
                    response = client().utils.get_session().get(self._url, headers=headers, follow_redirects=True)
                    if not tries_left or response.status_code not in (429, 500, 502, 503, 504):
                        client().utils.hf_raise_for_status(response)
                        return self._checked(response, offset, n_bytes)
            except (ConnectionError, WrongSizeError):
                if not tries_left:
                    raise
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    def read_beside(self, name: str) -> bytes | None:
        """Another file of the same folder, or None where there is none."""
        name = f"{self._folder}/{name}" if self._folder else name
        if self._files is None or name not in self._files.sizes:
            return None
        file = self._files.open(name, self._token)
        return file.read_at(0, file.n_bytes)

    def _checked(self, response: Any, offset: int, n_bytes: int) -> bytes:
        """The bytes, if they are those that were asked for: a server may ignore ranges, or the file may have changed."""
        content: bytes = response.content
        expected = f"bytes {offset}-{offset + n_bytes - 1}/{self.n_bytes}"
        came = response.headers.get("Content-Range", "")
        if response.status_code != 206:
            raise OSError(errno.EPROTO, "the server does not give ranges of files", self.path)
        if came != expected or len(content) != n_bytes:
            message = f"the server gave {len(content)} bytes as {came!r} where {expected!r} was asked for"
            raise WrongSizeError(errno.EPROTO, message, self.path)
        return content


class WrongSizeError(OSError):
    """A server's answer is not as long as it has to be."""


class Listing(NamedTuple):
    """The files of a repository at one commit."""

    repo_id: str
    commit: str
    sizes: Mapping[str, int]
    """Bytes of each file, by its path."""

    def matching(self, pattern: str) -> list[str]:
        """Names of files that match a regular expression, sorted."""
        return sorted(name for name in self.sizes if re.fullmatch(pattern, name))

    def open(self, name: str, token: str | bool | None = None) -> RemoteFile:
        return RemoteFile(self.repo_id, name, self.sizes[name], commit=self.commit, token=token, files=self)


def listing(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> Listing:
    """What a repository holds. Raises FileNotFoundError, PermissionError, ConnectionError."""
    hub = client()
    api = hub.HfApi(token=token)
    with hub_errors(repo_id):
        commit = api.model_info(repo_id, revision=revision).sha
        entries = list(api.list_repo_tree(repo_id, revision=commit, recursive=True))
    return Listing(repo_id, commit, {entry.path: entry.size for entry in entries if isinstance(entry, hub.RepoFile)})
