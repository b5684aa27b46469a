"""A Hub on loopback: repositories in memory, served over HTTP by the endpoints that huggingface_hub calls."""

import base64
import hashlib
import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_SUFFIXES = (".bs", ".safetensors", ".bin")
"""Files that the Hub keeps in LFS: their ETag is a SHA-256."""


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str
    range: str | None


class Fault(NamedTuple):
    """What goes wrong with the next request of a method to a path that contains a pattern."""

    method: str
    pattern: str
    kind: str
    """`cut`: the connection breaks in the middle of the body. `busy`: 503. `short`: a byte is missing of what is asked for. `whole`: the
    server takes no notice of ranges. `refused`: 403. `hang`: no answer for a minute. `none`: nothing."""


class Hub:
    """The server, its repositories, the requests it has got, and what is to go wrong with coming ones."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.user: str | None = "me"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, repo: str, files: Mapping[str, bytes]) -> None:
        self.repos[repo] = dict(files)

    def add_folder(self, repo: str, folder: Path) -> None:
        """A repository of all files below a folder."""
        self.add(repo, {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()})

    def reset(self) -> None:
        """Forget every repository, request and fault."""
        self.repos.clear()
        self.uploads.clear()
        self.requests.clear()
        self.faults.clear()
        self.user = "me"

    def fault(self, kind: str, method: str, pattern: str, times: int = 1) -> None:
        """Have the next requests go wrong."""
        self.faults += [Fault(method, pattern, kind)] * times

    def fault_of(self, method: str, path: str) -> str | None:
        for fault in self.faults:
            if fault.method == method and re.search(fault.pattern, path):
                self.faults.remove(fault)
                return fault.kind
        return None

    def downloads(self) -> list[str]:
        """Paths of the files that were downloaded, whole or in part."""
        return [match[1] for one in self.requests if one.method == "GET" and (match := re.search(r"/resolve/[^/]+/(.+)", one.path))]

    def commit(self, repo: str) -> str:
        """The commit that a repository is at: a digest of what it holds."""
        contents = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.repos[repo].items())
        return hashlib.sha1(json.dumps(contents).encode()).hexdigest()

    def tree(self, repo: str) -> list[dict[str, Any]]:
        """Every file as the Hub describes it."""
        return [describe(path, data) for path, data in sorted(self.repos[repo].items())]


def blob_id(data: bytes) -> str:
    """git's name for these contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def describe(path: str, data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
    if path.endswith(LARGE_SUFFIXES):
        facts["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return facts


class Handler(BaseHTTPRequestHandler):
    """One connection. `ROUTES` says which method answers which path."""

    protocol_version = "HTTP/1.1"
    fault: str | None = None

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: object = b"", headers: Mapping[str, object] | None = None) -> None:
        """Send bytes as they are and anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self.fault == "short":
            data = data[:-1]
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}
        for name, value in sent.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, headers: Mapping[str, object] | None = None) -> None:
        self.answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def respond(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range")))
        self.fault = self.hub.fault_of(self.command, path)
        if self.fault == "busy":
            self.refuse(503, "Busy")
            return
        if self.fault == "refused":
            self.refuse(403, "Forbidden")
            return
        if self.fault == "hang":
            time.sleep(60)
        for pattern, route in ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None:
                route(self, match.groupdict(), parse_qs(url.query), body)
                return
        self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond  # noqa: N815 - the names are the base class's

    def knows(self, repo: str) -> bool:
        """Whether there is such a repository; if not, that has been answered."""
        if repo not in self.hub.repos:
            self.refuse(404, "RepoNotFound")
        return repo in self.hub.repos

    def repo_info(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        if self.knows(at["repo"]):
            self.answer(200, self.info_of(at["repo"]))

    def info_of(self, repo: str) -> dict[str, Any]:
        return {
            "_id": "0",
            "id": repo,
            "modelId": repo,
            "sha": self.hub.commit(repo),
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in self.hub.repos[repo]],
        }

    def repos(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        author, search = (query.get(key, [""])[0] for key in ("author", "search"))
        found = [repo for repo in self.hub.repos if search in repo and (not author or repo.startswith(f"{author}/"))]
        self.answer(200, [self.info_of(repo) for repo in found])

    def tree(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        if not self.knows(at["repo"]):
            return
        folder = at["folder"] or ""
        found = [entry for entry in self.hub.tree(at["repo"]) if not folder or entry["path"].startswith(f"{folder}/")]
        if folder and not found:
            self.refuse(404, "EntryNotFound")
        else:
            self.answer(200, found)

    def paths_info(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        if self.knows(at["repo"]):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            paths = [asked] if isinstance(asked, str) else asked
            self.answer(200, [entry for entry in self.hub.tree(at["repo"]) if entry["path"] in paths])

    def file(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        repo, path = at["repo"], at["path"]
        if not self.knows(repo):
            return
        commit = {"X-Repo-Commit": self.hub.commit(repo)}
        data = self.hub.repos[repo].get(path)
        if data is None:
            self.refuse(404, "EntryNotFound", commit)
            return
        facts = describe(path, data)
        etag = facts.get("lfs", facts)["oid"]
        headers = {**commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if self.command == "HEAD":
            self.answer(200, b"", {**headers, "Content-Length": len(data)})
        elif asked is None or self.fault == "whole":
            self.answer(200, data, headers)
        elif int(asked[1]) >= len(data):
            self.answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        else:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            part = data[first : last + 1]
            self.answer(206, part, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def whoami(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        if self.hub.user is None:
            self.refuse(401, "Unauthorized")
        else:
            self.answer(200, {"type": "user", "name": self.hub.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        url = f"{self.hub.endpoint}/{repo}"
        if repo in self.hub.repos:
            self.answer(409, {"error": "there is one already", "url": url})
        else:
            self.hub.repos[repo] = {}
            self.answer(200, {"url": url, "name": repo, "id": "0"})

    def preupload(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        """How each file is to be sent."""
        if self.knows(at["repo"]):
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(LARGE_SUFFIXES) else "regular" for path in paths}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for path, mode in modes.items()]
            self.answer(200, {"files": files})

    def lfs_batch(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        """Where large files are to be sent to; nowhere if they are there."""
        answers = []
        for asked in json.loads(body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if asked["oid"] not in self.hub.uploads:
                answer["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}
            answers.append(answer)
        self.answer(200, {"transfer": "basic", "objects": answers}, {"Content-Type": "application/vnd.git-lfs+json"})

    def lfs_upload(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != at["oid"]:
            self.refuse(400, "WrongDigest")
        else:
            self.hub.uploads[at["oid"]] = body
            self.answer(200)

    def lfs_verify(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        self.answer(200)

    def commit(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        if not self.knows(at["repo"]):
            return
        files = self.hub.repos[at["repo"]]
        for line in body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.uploads[value["oid"]]
                case "deletedFile":
                    files.pop(value["path"], None)
        commit = self.hub.commit(at["repo"])
        url = f"{self.hub.endpoint}/{at['repo']}/commit/{commit}"
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def validate(self, at: Mapping[str, str], query: Mapping[str, list[str]], body: bytes) -> None:
        self.answer(200, {"errors": [], "warnings": []})


Route = Callable[[Handler, Mapping[str, str], Mapping[str, list[str]], bytes], None]

REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"

ROUTES: list[tuple[str, Route]] = [
    (r"/api/models", Handler.repos),
    (rf"/api/models/{REPO}", Handler.repo_info),
    (rf"/api/models/{REPO}/revision/{REVISION}", Handler.repo_info),
    (rf"/api/models/{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?", Handler.tree),
    (rf"/api/models/{REPO}/paths-info/{REVISION}", Handler.paths_info),
    (r"/api/whoami-v2", Handler.whoami),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.validate),
    (rf"/api/models/{REPO}/preupload/{REVISION}", Handler.preupload),
    (rf"/api/models/{REPO}/commit/{REVISION}", Handler.commit),
    (rf"/{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (rf"/{REPO}\.git/info/lfs/objects/verify", Handler.lfs_verify),
    (r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_upload),
    (rf"/{REPO}/resolve/{REVISION}/(?P<path>.+)", Handler.file),
]


# One for all tests. Not in conftest, which pytest and the tests that take something from it import each for itself.
HUB = Hub()
HUB_HOME = tempfile.TemporaryDirectory(prefix="bigsmall-hub-")
