"""The API server of a cluster with Jobs, pods and Leases, over real TLS, and the service account of a pod in it."""

import copy
import json
import re
import ssl
import subprocess
import threading
import uuid
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

JOB, POD = "train", "train-x7k2p"
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict"}


def iso(seconds=0.0):
    """Return a time relative to now, as the server writes it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Cluster:
    """Objects by path, with the semantics of the API server: resource versions, merge patches, pages, tokens.

    Attributes:
        requests: Method, path and content of each request.
        faults: What happens to the next requests: ``(method, part of the path, fault)``. A fault is a status,
            ``"hang"`` (no answer), ``"lost"`` (done, no answer), ``"change"`` (somebody else changes the object before)
            or a function that is called before.
        tokens: Accepted tokens.
        may_patch_jobs: Answer to a review of that permission.
        suspended: Called when a Job is suspended, in place of the Job controller.

    """

    def __init__(self):
        self.objects, self.requests, self.faults, self.tokens = {}, [], [], {"token-1"}
        self.may_patch_jobs, self.retry_after, self._version = True, "0", 100
        self.suspended = lambda: None
        self._lock, self.stopped = threading.RLock(), threading.Event()

    # -- objects ------------------------------------------------------------------------------------------------------

    def add(self, path, **fields):
        *_, namespace, _, name = path.split("/")
        metadata = {"name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": iso()}
        found = self.objects[path] = merged({"metadata": metadata}, fields)
        self.bump(found)
        return found

    def add_job(self, name=JOB, namespace="default", **fields):
        start = {"kind": "Job", "spec": {"parallelism": 1, "suspend": False}, "status": {"startTime": iso()}}
        return self.add(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", **merged(start, fields))

    def add_pod(self, job, name=POD, **fields):
        owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
        own = {"kind": "Pod", "metadata": {"ownerReferences": [owner]}}
        return self.add(f"/api/v1/namespaces/default/pods/{name}", **merged(own, fields))

    def add_lease(self, age=0.0, interval=60, namespace="default", **metadata):
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/lightning-green-waker"
        renewed = iso(-age).replace("Z", ".000000Z")
        return self.add(path, metadata=metadata, spec={"renewTime": renewed, "leaseDurationSeconds": interval})

    def job(self, name=JOB, namespace="default"):
        return self.objects[f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]

    def lease(self, namespace="default"):
        return self.objects.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/lightning-green-waker")

    def bump(self, found):
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)

    def patches(self, part="jobs/"):
        return [body for method, path, body in self.requests if method == "PATCH" and part in path]

    # -- requests -----------------------------------------------------------------------------------------------------

    def answer(self, method, target, body, headers):
        with self._lock:
            path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
            self.requests.append((method, path, body))
            if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
                return 401, {}
            fault = self._fault(method, path)
            if isinstance(fault, int):
                return fault, {}
            if callable(fault):
                fault()
            if fault == "change":
                self.bump(self.objects[path])
            if fault == "hang":
                return None, None
            status, found = self._answer(method, path, query, body, headers)
            return (None, None) if fault == "lost" else (status, copy.deepcopy(found))

    def _fault(self, method, path):
        for one in self.faults:
            if one[0] == method and one[1] in path:
                self.faults.remove(one)
                return one[2]
        return None

    def _answer(self, method, path, query, body, headers):
        if path.endswith("/selfsubjectaccessreviews"):
            return 201, {"status": {"allowed": self.may_patch_jobs}}
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            return (409, {}) if path in self.objects else (201, self.add(path, **body))
        if method == "GET" and path.endswith("/jobs"):
            return 200, self._page(path, query)
        if path not in self.objects:
            return 404, {}
        found = self.objects[path]
        if method == "PATCH":
            if headers.get("Content-Type") != "application/merge-patch+json":
                return 415, {}
            version = body.get("metadata", {}).get("resourceVersion")
            if version not in (None, found["metadata"]["resourceVersion"]):
                return 409, {}
            found = self.objects[path] = merged(found, body)
            self.bump(found)
            if body.get("spec", {}).get("suspend") is True:
                self.suspended()
        return 200, found

    def _page(self, path, query):
        inside = re.compile(
            rf"{path}/[^/]+" if "/namespaces/" in path else r"/apis/batch/v1/namespaces/[^/]+/jobs/[^/]+"
        )
        names = sorted(one for one in self.objects if inside.fullmatch(one))
        first, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["1000"])[0])
        rest = {"continue": str(first + limit)} if first + limit < len(names) else {}
        return {"metadata": rest, "items": [self.objects[name] for name in names[first : first + limit]]}


def merged(found, change):
    """Return an object after a merge patch (RFC 7386)."""
    if not isinstance(change, dict):
        return change
    result = dict(found) if isinstance(found, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _respond(self):
        cluster = self.server.cluster
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, found = cluster.answer(self.command, self.path, body, self.headers)
        if status is None:
            cluster.stopped.wait(30.0)
            self.close_connection = True
            return
        if status >= 400:
            found = {"kind": "Status", "status": "Failure", "code": status, "message": "text of the server"}
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status in (429, 503) and cluster.retry_after is not None:
            self.send_header("Retry-After", cluster.retry_after)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_POST = _respond

    def log_message(self, *args):
        pass


def make_certificate(folder):
    """Write ``key.pem`` and ``ca.crt`` of a server at 127.0.0.1."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=kubernetes"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "ca.crt"]
    subprocess.run([*command.split(), *map(str, files)], check=True, capture_output=True)


@contextmanager
def fake_cluster(folder, certificates):
    """Run a cluster; ``folder`` becomes the directory of a service account, and ``cluster.environment`` is a pod's."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.cluster = cluster
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "ca.crt", certificates / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
    (folder / "namespace").write_text("default")
    (folder / "token").write_text("token-1\n")
    cluster.directory = folder
    cluster.environment = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.server_port),
        "LIGHTNING_GREEN_POD": POD,
    }
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield cluster
    finally:
        cluster.stopped.set()
        server.shutdown()
        server.server_close()
