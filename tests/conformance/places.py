"""Where things are in a conformance pod, as its services and the cases know it: addresses, ports, names."""

from __future__ import annotations

import ipaddress

NEAR = ("198.18.0.10", "fd00:198:18::10")
"""On the pod's own `lo`: a connection's source is the same address."""

FAR = ("198.18.1.2", "fd00:198:18:1::2")
"""Behind the veth pair; the pod's end, and so the source, is 1.1."""

POD = ("198.18.1.1", "fd00:198:18:1::1")
"""The pod's end of the pair."""

NAME_SERVERS = ("198.18.0.53",)
SEARCH = "demo.svc.cluster.local"

ECHO, RESET, BULK, SILENT, UNACCEPTED, WHO, HALF, LEDGER, CONTROL = range(7007, 7016)
HTTP = 8080
CLOSED = 7099
UDP_ECHO, UDP_ELSEWHERE, UDP_ANSWERING, UDP_CLOSED = 7020, 7021, 7022, 7029
VISITOR = 7017
"""Who visits servers when it is asked to."""
FREE = 7055
"""Nobody's port, for programs to listen on."""
SERVED = 7056
"""Another, and nobody's are the three behind it: for programs that serve in the pod."""

SOURCE_PORTS = range(28100, 28200)
"""What programs bind to before they connect: below the ephemeral ports, so that they may be printed."""

UNIX_STREAMS = ("/srv/pod/echo.sock", "@conformance/echo")

ZONE: dict[str, dict[str, list[str]]] = {
    "shop.demo.svc.cluster.local": {"A": ["198.18.0.10"], "AAAA": ["fd00:198:18::10"]},
    "four.demo.svc.cluster.local": {"A": ["198.18.0.10"]},
    "six.demo.svc.cluster.local": {"AAAA": ["fd00:198:18::10"]},
    "far.demo.svc.cluster.local": {"A": ["198.18.1.2"], "AAAA": ["fd00:198:18:1::2"]},
    "alias.demo.svc.cluster.local": {"CNAME": ["shop.demo.svc.cluster.local."]},
    "closed.example.com": {"A": ["198.18.0.10"]},
    "text.example.com": {"TXT": ['"one text"', '"another"'], "MX": ["10 shop.demo.svc.cluster.local."]},
    "_shop._tcp.example.com": {"SRV": ["0 5 8080 shop.demo.svc.cluster.local."]},
    # More than a datagram holds: the answer must be fetched over TCP.
    "many.example.com": {"A": [f"198.18.20.{each}" for each in range(1, 101)]},
    "10.0.18.198.in-addr.arpa": {"PTR": ["shop.demo.svc.cluster.local."]},
    ipaddress.ip_address("fd00:198:18::10").reverse_pointer: {"PTR": ["shop.demo.svc.cluster.local."]},
}

FILES = {
    "/etc/resolv.conf": f"nameserver {NAME_SERVERS[0]}\nsearch {SEARCH} example.com\noptions timeout:2 attempts:2\n",
    "/etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n198.18.0.10\tfrom-hosts.example.com from-hosts\n",
    "/etc/hostname": "conformance-0\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    # A directory of the pod's own, for its Unix socket.
    "/srv/pod/README": "Only in the pod.\n",
}

HOSTNAME = "conformance-0"
ENVIRONMENT = {
    "POD_NAME": HOSTNAME,
    "GREETING": "hello, wörld",
    "WITH_NEWLINE": "one\ntwo",
    "EMPTY": "",
    "SHOP_URL": f"http://shop:{HTTP}/",
}
