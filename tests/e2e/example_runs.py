"""An example from certificates to the end of its script, on two hosts that are two directories."""

from __future__ import annotations

from pathlib import Path

from two_hosts import Host, TwoHosts, follow, free_ports, stop_process


def hosts_of(example: str, directory: Path) -> list[Host]:
    """Two hosts on loopback, with ports of their own."""
    ports = iter(free_ports(6))
    hosts = []
    for index in (1, 2):
        (directory / f"host-{index}").mkdir()
        hosts.append(
            Host(
                index=index,
                address="127.0.0.1",
                directory=directory / f"host-{index}",
                p2p_port=next(ports),
                api_port=next(ports),
                learner_port=next(ports),
                example=example,
            )
        )
    return hosts


def run(swarm: TwoHosts) -> list[str]:
    """Nodes, operators, and the example's script to its end; what the script printed."""
    output: list[str] = []
    script = None
    try:
        for host in swarm.hosts:
            swarm.network_node(host)
        for host in swarm.hosts:
            swarm.operator(host)
        script = swarm.command_interface()
        assert follow(script, output.append) == 0, "\n".join(output)
    finally:
        if script is not None:
            stop_process(script)
        swarm.stop()
    return output
