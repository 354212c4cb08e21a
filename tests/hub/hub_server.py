"""A small Hub on this machine: the calls that huggingface_hub makes to create, commit, list and download.

Repositories live in memory as lists of commits, each a mapping of paths to bytes; large files are uploaded apart, as with
LFS. A request without the right token is refused, and the refusal repeats what it was sent, as a careless proxy would.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml


LARGE = (".safetensors",)
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class HubState:
    """What the Hub holds, what it was asked, and what it shall refuse."""

    token: str
    endpoint: str = ""
    repos: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)  # name of a call to the status it answers with
    served: dict[str, str | None] = field(default_factory=dict)  # file to the one that is served in its place
    lock: threading.RLock = field(default_factory=threading.RLock)

    def files(self, repo: str) -> dict[str, bytes]:
        """Files of the newest commit."""
        return self.repos[repo][-1][1]


def start_hub(token: str) -> tuple[ThreadingHTTPServer, HubState]:
    """Start a Hub on a free port of this machine; the caller shuts it down."""
    state = HubState(token)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, state


class _Handler(BaseHTTPRequestHandler):
    state: HubState
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        with self.state.lock:
            status, headers, content = self._route(method, path, body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if method != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _route(self, method: str, path: str, body: bytes) -> Answer:
        for pattern, name in ROUTES:
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                self.state.asked.append(name)
                sent = self.headers.get("Authorization", "")
                if name != "put_large" and sent != f"Bearer {self.state.token}":
                    return _json({"error": f"no such token: {sent}"}, 401, {"X-Error-Message": f"bad {sent}"})
                if name in self.state.refuse:
                    return _json({"error": f"{name} refused for {sent}"}, self.state.refuse[name])
                return CALLS[name](self.state, body, **found.groupdict())
        self.state.asked.append(f"unknown {method} {path}")
        return _json({"error": "no such page"}, 404)


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(content).encode()


def _missing(code: str) -> Answer:
    return _json({"error": code}, 404, {"X-Error-Code": code})


def _create(state: HubState, body: bytes) -> Answer:
    asked = json.loads(body)
    repo = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
    answer = {"url": f"{state.endpoint}/{repo}"}
    if repo in state.repos:
        return _json(answer | {"error": "you already created it"}, 409)
    state.repos[repo] = [("0" * 40, {".gitattributes": b"*.safetensors filter=lfs\n"})]
    return _json(answer)


def _at(state: HubState, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
    commits = state.repos.get(repo, [])
    chosen = [commit for commit in commits if revision in (None, "main", commit[0])]
    return chosen[-1] if chosen else None


def _info(state: HubState, body: bytes, repo: str, revision: str | None = None) -> Answer:
    found = _at(state, repo, revision)
    if found is None:
        return _missing("RepoNotFound" if repo not in state.repos else "RevisionNotFound")
    siblings = [{"rfilename": name} for name in found[1]]
    return _json({"id": repo, "modelId": repo, "sha": found[0], "siblings": siblings, "private": False, "tags": []})


def _tree(state: HubState, body: bytes, repo: str, revision: str, folder: str | None = None) -> Answer:
    found = _at(state, repo, revision)
    inside = {} if found is None else {name: data for name, data in found[1].items() if name.startswith(folder or "")}
    if not inside:
        return _missing("EntryNotFound")
    return _json([_entry(name, data) for name, data in inside.items()])


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _preupload(state: HubState, body: bytes, repo: str, revision: str) -> Answer:
    held = (_at(state, repo, revision) or ("", {}))[1]
    files = []
    for file in json.loads(body)["files"]:
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        data = held.get(file["path"])
        hashed = hashlib.sha256(data or b"").hexdigest() if mode == "lfs" else _blob_id(data or b"")
        oid = None if data is None else hashed
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return _json({"files": files})


def _batch(state: HubState, body: bytes, repo: str) -> Answer:
    objects = []
    for item in json.loads(body)["objects"]:
        actions = {"actions": {"upload": {"href": f"{state.endpoint}/large/{item['oid']}"}}}
        objects.append(item | ({} if item["oid"] in state.large else actions))
    return _json({"transfer": "basic", "objects": objects})


def _put_large(state: HubState, body: bytes, oid: str) -> Answer:
    assert hashlib.sha256(body).hexdigest() == oid
    state.large[oid] = body
    return _json({})


def _commit(state: HubState, body: bytes, repo: str, revision: str) -> Answer:
    head, files = state.repos[repo][-1][0], dict(state.files(repo))
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header" and value.get("parentCommit", head) != head:
            return _json({"error": "A commit has happened since. Please refresh and try again."}, 412)
        if item["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            files[value["path"]] = state.large[value["oid"]]
        elif item["key"] == "deletedFile":
            del files[value["path"]]
    oid = hashlib.sha1(body + head.encode(), usedforsecurity=False).hexdigest()
    state.repos[repo].append((oid, files))
    return _json({"success": True, "commitOid": oid, "commitUrl": f"{state.endpoint}/{repo}/commit/{oid}"})


def _resolve(state: HubState, body: bytes, repo: str, revision: str, name: str) -> Answer:
    found = _at(state, repo, revision)
    if found is None:
        return _missing("RepoNotFound" if repo not in state.repos else "RevisionNotFound")
    name = state.served.get(name, name)
    if name not in found[1]:
        status, headers, content = _missing("EntryNotFound")
        return status, headers | {"X-Repo-Commit": found[0]}, content
    data = found[1][name]
    return 200, {"X-Repo-Commit": found[0], "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, data


def _validate(state: HubState, body: bytes) -> Answer:
    """The front matter of a card: a mapping with a licence, named where it is `other`."""
    front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
    named = (
        isinstance(front, dict) and front.get("license") and (front["license"] != "other" or "license_name" in front)
    )
    return _json({"errors": [] if named else [{"message": "no licence"}], "warnings": []})


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = (
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"GET /api/models/{_REPO}(/revision/(?P<revision>[^/]+))?", "info"),
    (rf"GET /api/models/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
    (rf"POST /api/models/{_REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /large/(?P<oid>\w+)", "put_large"),
    (rf"POST /api/models/{_REPO}/commit/(?P<revision>[^/]+)", "commit"),
    (rf"(GET|HEAD) /{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "resolve"),
)
CALLS: dict[str, Callable[..., Answer]] = {
    "create": _create,
    "validate": _validate,
    "info": _info,
    "tree": _tree,
    "preupload": _preupload,
    "batch": _batch,
    "put_large": _put_large,
    "commit": _commit,
    "resolve": _resolve,
}
