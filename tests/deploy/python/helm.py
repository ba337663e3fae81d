"""Lints and renders a chart with Helm's own library (helm-sdkpy, Helm 4), without a cluster.

The library installs into a cluster and has no `template`; so it installs into an API server of this program's own on
loopback, which knows the kinds below, holds nothing, and keeps what it is sent. What comes out is what Helm would have
created, in its order, with what it was asked not to check unchecked.

    helm.py lint CHART
        JSON on standard output: what the linter says
    helm.py package CHART FOLDER
        the path of the archive
    helm.py render CHART NAMESPACE RELEASE < values.json
        JSON on standard output: {"objects": [...], "notes": "..."} or {"refused": "..."}
    helm.py render-many CHART NAMESPACE RELEASE < [values, ...]
        the same for each, as a list
"""

import asyncio
import base64
import gzip
import json
import os
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What the server knows: the group and version, and of each kind its plural and whether it lies in a namespace.
KINDS = {
    "v1": {
        "ConfigMap": ("configmaps", True),
        "Namespace": ("namespaces", False),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "apps/v1": {"DaemonSet": ("daemonsets", True), "StatefulSet": ("statefulsets", True)},
    "batch/v1": {"CronJob": ("cronjobs", True), "Job": ("jobs", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "rbac.authorization.k8s.io/v1": {
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
    },
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": ("customresourcedefinitions", False)},
    "cert-manager.io/v1": {"Certificate": ("certificates", True), "Issuer": ("issuers", True)},
    "monitoring.coreos.com/v1": {
        "PodMonitor": ("podmonitors", True),
        "PrometheusRule": ("prometheusrules", True),
        "ServiceMonitor": ("servicemonitors", True),
    },
    "fleetknock.io/v1": {"Door": ("doors", True)},
}

# A release as Helm keeps it, within the Secret: gzip in base64.
RELEASE = re.compile(rb"H4sI[A-Za-z0-9+/=]+")


class Cluster(ThreadingHTTPServer):
    """An API server that holds nothing and keeps what it is sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.forget()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def forget(self):
        self.created, self.release = [], b"{}"

    def kubeconfig(self):
        context = {"cluster": "own", "user": "own"}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "own", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
                ],
                "users": [{"name": "own", "user": {}}],
                "contexts": [{"name": "own", "context": context}],
                "current-context": "own",
            }
        )


class Answers(BaseHTTPRequestHandler):
    """What it answers."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, code, what):
        self.answer(code, "application/json", json.dumps(what).encode())

    def answer(self, code, form, body):
        self.send_response(code)
        self.send_header("Content-Type", form)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def missing(self):
        self.say(
            404,
            {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404},
        )

    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        groups = [version for version in KINDS if "/" in version]
        if path == "/version":
            self.say(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        elif path == "/api":
            self.say(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            listed = []
            for version in groups:
                one = {"groupVersion": version, "version": version.split("/")[1]}
                listed.append({"name": version.split("/")[0], "versions": [one], "preferredVersion": one})
            self.say(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        elif path == "/api/v1" or path.removeprefix("/apis/") in groups:
            version = "v1" if path == "/api/v1" else path.removeprefix("/apis/")
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            resources = [
                {"name": plural, "singularName": "", "namespaced": inside, "kind": kind, "verbs": verbs}
                for kind, (plural, inside) in KINDS[version].items()
            ]
            self.say(
                200,
                {
                    "kind": "APIResourceList",
                    "apiVersion": "v1",
                    "groupVersion": version,
                    "resources": resources,
                },
            )
        elif path.endswith("/secrets"):
            # Releases of before, of which there are none.
            self.say(200, {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []})
        else:
            self.missing()

    def keep(self, code):
        """Keeps what was sent, and answers with it. Helm sends its own Secret, the release, in another encoding."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body.startswith(b"k8s\0"):
            self.server.release = gzip.decompress(base64.b64decode(RELEASE.search(body).group()))
        else:
            self.server.created.append(json.loads(body))
        self.answer(code, self.headers["Content-Type"], body)

    def do_POST(self):
        self.keep(201)

    def do_PUT(self):
        self.keep(200)


def render(helm, kubeconfig, cluster, chart, namespace, release, values):
    """What Helm creates with these values, and what it says to whoever installed."""
    cluster.forget()
    configuration = helm.Configuration(namespace=namespace, kubeconfig=kubeconfig)
    try:
        asyncio.run(helm.Install(configuration).run(release, chart, values=values, wait=False))
    except helm.HelmError as error:
        return {"refused": str(error)}
    info = json.loads(cluster.release)["info"]
    return {"objects": cluster.created, "notes": info.get("notes", "")}


def main():
    # Helm writes its caches and its configuration where these say, and nowhere else.
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {f"HELM_{what}_HOME": home for what in ("CACHE", "CONFIG", "DATA")} | {"HOME": home}
        import helm_sdkpy as helm

        cluster = Cluster()
        kubeconfig = os.path.join(home, "kubeconfig")
        with open(kubeconfig, "w", encoding="utf-8") as file:
            file.write(cluster.kubeconfig())
        verb, chart, *rest = sys.argv[1:]
        if verb in ("lint", "package"):
            configuration = helm.Configuration(kubeconfig=kubeconfig)
            action = helm.Lint if verb == "lint" else helm.Package
            answer = asyncio.run(action(configuration).run(chart, *rest))
        elif verb == "render":
            answer = render(helm, kubeconfig, cluster, chart, *rest, json.load(sys.stdin))
        elif verb == "render-many":
            answer = [render(helm, kubeconfig, cluster, chart, *rest, values) for values in json.load(sys.stdin)]
        else:
            sys.exit(__doc__)
        json.dump(answer, sys.stdout, indent=1)


main()
