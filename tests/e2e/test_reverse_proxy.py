"""Two hosts that let in nothing but port 443 and the mesh, as docs/how-to/reverse-proxy.md has it.

The page's own nginx configuration, commands, profile keys and script lines are what runs here, with
a real nginx on each host; the example trains through it to the end.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_hosts import Host, TwoHosts, follow, stop_process

from tests.e2e import netns, nginx
from tests.machine import install
from tests.processes import until

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/how-to/reverse-proxy.md").read_text()
OPEN = "443,30303"

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
]


def block(kind: str, number: int = 0) -> str:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[number]


def line(start: str) -> str:
    """The page's first line of a script with these words, from there on."""
    found = re.search(rf"^(?:CREATE CONTEXT c )?({start} .*)$", PAGE, re.MULTILINE)
    assert found
    return found[1]


class Proxied(TwoHosts):
    """The same two hosts, reached by names alone."""

    def prepare(self) -> None:
        super().prepare()
        for host in self.hosts:
            profile = host.workspace / "swop" / f"swop{host.index}_profile.yaml"
            text = profile.read_text()
            text = re.sub(
                r"^apisrv:.*?(?=^envvars)", of_host(block("yaml"), host), text, flags=re.M | re.S
            )
            service = of_host("slfsservice: fs.sl-1.example.org", host)
            profile.write_text(re.sub(r"slhostip: .*", service, text))
        script = self.first.workspace / "swci" / "swci-init"
        text = re.sub(r"WAIT FOR IP .*", line("WAIT FOR SERVICE"), script.read_text())
        script.write_text(re.sub(r"WITH IP .*", line("WITH SERVICE"), text))

    def network_node(self, host: Host) -> None:
        words = " ".join(block("sh", host.index - 1).split()).split(" ")
        assert words[0] == "run-sn"
        identity = [*host.identity("sn"), "--runtime=process"]
        arguments = [w for w in words[1:] if not w.startswith("$")]
        self.run(host, "run-sn", *arguments, *identity)

    def operator(self, host: Host) -> None:
        self.run(
            host,
            "run-swop",
            *self._common("swop", host),
            f"--usr-dir={host.workspace / 'swop'}",
            f"--profile-file-name=swop{host.index}_profile.yaml",
        )


def of_host(text: str, host: Host) -> str:
    """What the page says of host 1, said of this host."""
    return text.replace("sn-1", f"sn-{host.index}").replace("sl-1", f"sl-{host.index}")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Two hosts behind firewalls, with nginx and the names."""
    if why := install(nginx.NEEDED):
        pytest.skip(why)
    with netns.two_hosts() as pair:
        names = tmp_path / "hosts"
        names.write_text(
            "127.0.0.1 localhost\n"
            + "".join(
                f"{namespace.address} api.sn-{i}.example.org p2p.sn-{i}.example.org "
                f"fs.sl-{i}.example.org\n"
                for i, namespace in enumerate(pair, 1)
            )
        )
        made, proxies = [], []
        for index, namespace in enumerate(pair, 1):
            closed = f"-A INPUT -i eth0 -p tcp --syn -m multiport ! --dports {OPEN} -j DROP"
            namespace.run("iptables", *closed.split())
            directory = tmp_path / f"host-{index}"
            directory.mkdir()
            mount = f'mount --bind {names} /etc/hosts && exec "$@"'
            host = Host(
                index=index,
                address=namespace.address,
                directory=directory,
                p2p_port=30303,
                api_port=30304,
                learner_port=30305,
                prefix=[*namespace.prefix, "unshare", "--mount", "sh", "-c", mount, "sh"],
                example="sklearn",
            )
            made.append(host)
            stream = of_host(block("nginx"), host)
            proxies.append(nginx.start(namespace.prefix, tmp_path / f"nginx-{index}", stream))
        try:
            for proxy, namespace in zip(proxies, pair, strict=True):
                until(lambda n=namespace: connects(n, 443), 10, "nginx listens")
                assert proxy.poll() is None
            yield made
        finally:
            for proxy in proxies:
                proxy.terminate()
                proxy.wait(10)


def connects(namespace: netns.Namespace, port: int, to: str = "127.0.0.1") -> bool:
    """Whether a connection from this host comes about."""
    attempt = f"import socket; socket.create_connection(({to!r}, {port}), 1)"
    done = subprocess.run(
        [*namespace.prefix, "python3", "-c", attempt], capture_output=True, check=False
    )
    return not done.returncode


def test_the_page(hosts: list[Host]) -> None:
    swarm = Proxied(hosts)
    script = None
    output: list[str] = []
    try:
        swarm.prepare()
        for host in hosts:
            swarm.network_node(host)
        for host in hosts:
            swarm.operator(host)
        other = netns.Namespace(hosts[1].prefix[1].rpartition("/")[2], "")
        assert connects(other, 443, hosts[0].address)
        assert not connects(other, 30304, hosts[0].address), "the firewall does its work"
        script = swarm.command_interface()
        assert follow(script, output.append) == 0, "\n".join(output)
    finally:
        if script is not None:
            stop_process(script)
        swarm.stop()
    rows = [line.split(",") for line in output if line.count(",") == 6]
    shown = {(row[0].strip(), row[1].strip(), row[2].strip()) for row in rows}
    assert {
        ("SENTINEL", "api.sn-1.example.org", "443"),
        ("SN", "api.sn-2.example.org", "443"),
        ("SWOP", "api.sn-1.example.org", "443"),
        ("SWOP", "api.sn-2.example.org", "443"),
    } <= shown, "\n".join(output)
    results = [json.loads((host.user / "result.json").read_text()) for host in hosts]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]


def test_nothing_answers_to_another_name(hosts: list[Host]) -> None:
    """An unknown name gets no connection to any node, and asking without a name neither."""
    attempt = (
        "import socket, ssl, sys\n"
        "context = ssl._create_unverified_context()\n"
        f"raw = socket.create_connection(('{hosts[0].address}', 443), 5)\n"
        "try: context.wrap_socket(raw, server_hostname=sys.argv[1] or None)\n"
        "except OSError: sys.exit(7)\n"
    )
    for name in ("other.example.org", ""):
        done = subprocess.run(
            [*hosts[1].prefix, "python3", "-c", attempt, name], capture_output=True, check=False
        )
        assert done.returncode == 7, done.stderr
