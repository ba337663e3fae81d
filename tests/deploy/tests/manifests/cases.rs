//! Values with which the chart is rendered.

use serde_json::{Value, json};

/// Three controllers with the etcd for trying out: what the overlay `ha` is.
pub(crate) fn ha() -> Value {
    json!({"controller": {"replicas": 3, "store": "etcd"}, "etcd": {"deploy": true}})
}

/// Every way in which the chart is used, each with a name.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("single", json!({})),
        ("ha", ha()),
        (
            "certificates of cert-manager",
            json!({
                "tls": {"mode": "certManager", "certManager": {"dnsNames": ["knock.example"]}},
                "seal": {"secret": "fleetknock-seal", "keys": ["new.key", "old.key"]},
                "controller": {"replicas": 3, "store": "etcd", "antiAffinity": "required"},
                "etcd": {"deploy": true},
            }),
        ),
        (
            "an issuer of one's own, certificates for one controller",
            json!({
                "tls": {"mode": "certManager", "certManager": {"issuer": "corporate", "issuerKind": "ClusterIssuer"}},
                "seal": {"secret": "fleetknock-seal"},
            }),
        ),
        (
            "certificates and an etcd that exist",
            json!({
                "tls": {"mode": "existing", "existing": {"secret": "ours", "caConfigMap": "our-ca"}},
                "seal": {"secret": "fleetknock-seal"},
                "controller": {"replicas": 2, "store": "etcd"},
                "etcd": {"existing": {
                    "endpoints": ["https://10.0.0.1:2379", "https://10.0.0.2:2379"],
                    "caSecret": "etcd-ca", "clientSecret": "etcd-client", "user": "fleetknock",
                    "passwordSecret": "etcd-user", "prefix": "/fleets/"}},
            }),
        ),
        (
            "watched by the Prometheus operator and Grafana",
            json!({
                "monitoring": {
                    "podMonitors": true, "rules": true, "dashboards": true,
                    "labels": {"release": "kube-prometheus-stack"}},
                "agent": {"address": "$(NODE_IP)"},
                "controller": {"replicas": 3, "store": "etcd"},
                "etcd": {"deploy": true},
                "otlp": {"url": "https://collector.observability.svc:4317", "caConfigMap": "collector-ca"},
            }),
        ),
        (
            "everything off",
            json!({
                "agent": {"enabled": false},
                "doors": {"enabled": false},
                "networkPolicy": {"enabled": false},
                "controller": {"dashboard": false, "antiAffinity": "none"},
            }),
        ),
        (
            "everything set",
            json!({
                "image": {"registry": "registry.example/", "tag": "0.1.0-rc.1", "pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
                "fleet": "prod",
                "management": ["10.0.0.0/8", "fd00::/8"],
                "log": {"level": "info,fleetknock_controller=debug", "format": "human"},
                "controller": {
                    "persistence": {"size": "5Gi", "storageClass": "fast"}, "listen": "[::]", "hostCertificatesFor": "10d",
                    "extraArgs": ["--ban-misses=20"],
                    "service": {"type": "LoadBalancer", "annotations": {"example/internal": "true"}},
                    "nodeSelector": {"pool": "system"}, "tolerations": [{"key": "pool", "operator": "Equal", "value": "system"}],
                    "priorityClassName": "high", "podAnnotations": {"a": "b"}},
                "agent": {
                    "firewall": "iptables", "management": ["192.0.2.0/24"], "onExit": "open", "harden": "require",
                    "stateDirectory": "/srv/fleetknock/agent", "mark": "0x1", "acceptIn": "INPUT", "address": "[::1]", "port": 9700,
                    "extraArgs": ["--interface=eth0"], "nodeLabels": ["topology."], "nodeSelector": {"edge": "yes"},
                    "podAnnotations": {"a": "b"}, "maxUnavailable": "10%"},
                "tls": {"pki": {"dnsNames": ["knock.example"], "schedule": "@weekly"}},
                "doors": {"namespace": "*", "secrets": true},
                "networkPolicy": {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "metricsNamespace": "observability"},
            }),
        ),
    ]
}
