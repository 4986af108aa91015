"""`up` and `down`: a host's nodes, started in order and stopped in the opposite one.

`up` may be called again and again: what runs already is left as it is. Settings that differ from
those that a running node took are told, and nothing is touched unless `restart` says so. When a
node does not become ready, its log's end is shown and everything that this call started is stopped
again; what ran before goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from swarm.errors import LocalError, SwarmFault
from swarm.host import record
from swarm.host.hostfile import ReadHost
from swarm.host.plan import Node, Plan, differences
from swarm.host.record import Record, Started
from swarm.host.runtimes import Runtime

TAIL_LINES = 25
PAUSE_SECONDS = 0.25
FIRST_SECONDS = 2.0  # nothing is told of a wait that is shorter
TELL_SECONDS, REPEAT_SECONDS = 5.0, 20.0  # between two lines about a wait; the same one again

Probe = Callable[[Node, float], str]  # node, seconds since its start → why it is not ready, or ""


@dataclass
class Host:
    """One host with what starts and stops its nodes. `probe` may raise RemoteError for good."""

    runtime: Runtime
    probe: Probe
    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def up(self, read: ReadHost, plan: Plan, *, limit: float, restart: bool = False) -> None:
        """Start what does not run yet. The caller holds the host's lock.

        Raises LocalError: SW9032 other settings, SW9033 a foreign node, SW9034 not ready in time,
        SW9005 ended while it was starting; and what starting itself raises.
        """
        host = read.host
        known = record.read(host.name) or Record(host.name, host.runtime, str(read.file))
        if known.runtime != host.runtime and any(self._runs(node) for node in known.nodes):
            raise LocalError("SW9032", f"runtime: {known.runtime} → {host.runtime}")
        self._refuse_foreign(plan, known)
        changed = list(self._changed(plan, known))
        if changed and not restart:
            raise LocalError("SW9032", "; ".join(f"{name}: {what}" for name, what in changed))
        known = Record(host.name, host.runtime, str(read.file), known.nodes)
        for name in dict.fromkeys(name for name, _ in reversed(changed)):
            known = self._stop_changed(known, name)
        record.write(known)
        if plan.profile is not None:
            file, text = plan.profile
            file.parent.mkdir(mode=0o755, exist_ok=True)  # an operator may be another user
            file.write_text(text)
        self._start_missing(plan.nodes, known, limit)

    def down(self, known: Record, *, remove: bool) -> None:
        """Stop the nodes that `up` started, operator first. The caller holds the host's lock."""
        for node in reversed(known.nodes):
            running = self.runtime.running(node.name)
            if running and node.handle not in ("", running):
                self.say(f"{node.name}: left alone, as it was started by somebody else since")
                continue
            self.say(f"{node.name}: {'stopping' if running else 'has ended already'}")
            self.runtime.stop(node, remove)
            record.write(known := known.without(node.name))
        record.forget(known.host)

    # ------------------------------------------------------------------ before

    def _runs(self, node: Started) -> bool:
        running = self.runtime.running(node.name)
        return bool(running) and node.handle in ("", running)

    def _refuse_foreign(self, plan: Plan, known: Record) -> None:
        for node in plan.nodes:
            running, ours = self.runtime.running(node.name), known.find(node.name)
            if running and (ours is None or ours.handle not in ("", running)):
                raise LocalError("SW9033", f"{node.name} runs, and `swarm up` did not start it")

    def _changed(self, plan: Plan, known: Record) -> Iterator[tuple[str, str]]:
        """(node, what is different) for running nodes, in the order of their start."""
        wanted = {node.name: node for node in plan.nodes}
        for started in known.nodes:
            if not self._runs(started):
                continue
            node = wanted.get(started.name)
            if node is None:
                yield started.name, "is not in the file any more"
                continue
            for difference in differences(started.settings, dict(node.settings)):
                yield started.name, difference

    def _stop_changed(self, known: Record, name: str) -> Record:
        node = known.find(name)
        assert node is not None, "its settings were compared"
        self.say(f"{name}: stopping, as its settings changed")
        self.runtime.stop(node, remove=False)
        return known.without(name)

    # ---------------------------------------------------------------- starting

    def _start_missing(self, nodes: Sequence[Node], known: Record, limit: float) -> None:
        begun: list[tuple[Node, bool]] = []  # and whether it had data before
        try:
            for node in nodes:
                earlier = known.find(node.name)
                if earlier is not None and self._runs(earlier):
                    self.say(f"{node.name}: runs already")
                    continue
                if earlier is not None:
                    self.runtime.stop(earlier, remove=False)  # what an ended one left
                begun.append((node, self.runtime.has_data(node)))
                known = self._start(node, known)
                self._wait(node, limit)
        except BaseException as fault:  # whatever it is, nothing half stays behind
            if isinstance(fault, SwarmFault) and begun:
                self._show_log(begun[-1][0])
            self._undo(begun, known)
            raise

    def _start(self, node: Node, known: Record) -> Record:
        self.say(f"{node.name}: starting")
        started = Started(node.component.name, node.name, "", dict(node.settings), node.volume)
        known = known.with_node(started)
        record.write(known)
        handle = self.runtime.start(node)
        started = Started(started.component, node.name, handle, started.settings, node.volume)
        known = known.with_node(started)
        record.write(known)
        return known

    def _wait(self, node: Node, limit: float) -> None:
        """Wait until a node is ready, and say why it is not, now and then."""
        begun = self.now()
        told, told_at = "", begun - TELL_SECONDS + FIRST_SECONDS
        while True:
            elapsed = self.now() - begun
            if not self.runtime.running(node.name):
                raise LocalError("SW9005", f"{node.name} ended {elapsed:.0f} s after its start")
            why = self.probe(node, elapsed)
            if not why:
                self.say(f"{node.name}: ready after {elapsed:.1f} s")
                return
            if elapsed >= limit:
                raise LocalError("SW9034", f"{node.name} is not ready after {limit:g} s: {why}")
            silent = self.now() - told_at
            if silent >= TELL_SECONDS and (why != told or silent >= REPEAT_SECONDS):
                self.say(f"{node.name}: waiting: {why}")
                told, told_at = why, self.now()
            self.pause(PAUSE_SECONDS)

    def _show_log(self, node: Node) -> None:
        tail = self.runtime.tail(node.name, TAIL_LINES)
        if tail:
            self.say(f"--- the last lines of {node.name} ---\n{tail}\n---")

    def _undo(self, begun: Sequence[tuple[Node, bool]], known: Record) -> None:
        """Stop what this call began, last first; data that were there before stay."""
        for node, had_data in reversed(begun):
            self.say(f"{node.name}: stopping again")
            started = known.find(node.name) or Started(
                node.component.name, node.name, "", dict(node.settings), node.volume
            )
            self.runtime.stop(started, remove=not had_data)
            known = known.without(node.name)
        if known.nodes:
            record.write(known)
        else:
            record.forget(known.host)
