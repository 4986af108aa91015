"""Golden transcripts of the state machine; for their form see `tests/golden.py`.

Whatever a command changes is printed behind its verdict: one line for the contract, one for the
taskrunner, one for each sentence that says why they wait.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from swarm.ledger.state import DEFAULT_CONTRACT, DEFAULT_RUNNER, Verdict
from tests.state.world import World, sha

Options = dict[str, Any]


class Session:
    """Executes the commands of one transcript on a fresh swarm."""

    def __init__(self) -> None:
        self.world = World()
        self._digests: dict[str, str] = {}
        self._seen = self._views()

    def run(self, line: str) -> list[str]:
        """Execute one command line and return what it prints."""
        name, *words = shlex.split(line)
        handler: Callable[..., Any] = getattr(self, f"do_{name.replace('-', '_')}")
        options = {}
        plain = []
        for word in words:
            key, equals, value = word.partition("=")
            if equals:
                options[key] = _value(value)
            else:
                plain.append(word)
        outcome = handler(*plain, **options)
        lines = self._verdict(outcome) if isinstance(outcome, Verdict) else list(outcome or [])
        return [self._readable(one) for one in lines + self._news()]

    def _verdict(self, verdict: Verdict) -> list[str]:
        result = {key: value for key, value in verdict.result.items() if key not in ("uid", "last")}
        shown = " ".join(f"{key}={_plain(value)}" for key, value in sorted(result.items()))
        head = "ok" if verdict.ok else f"{verdict.code}: {verdict.text}"
        return [f"{head} [{shown}]" if shown else head]

    def _readable(self, text: str) -> str:
        """Names in place of uids, and of the digests that the transcript has given."""
        for uid, name in self.world.names.items():
            text = text.replace(uid, name)
        for digest, name in self._digests.items():
            text = text.replace(digest, name).replace(digest[:16] + "…", name)
        return re.sub(r"operation=[0-9a-f]{16}", "operation=…", text)

    def _views(self) -> dict[str, str]:
        world = self.world
        runner = world.runner
        views = {
            "contract": _contract_line(world.contract),
            "contract waits": world.contract["waiting"],
            "runner": _runner_line(runner),
            "runner says": runner["text"] if runner["state"] in ("COMPLETE", "ERROR") else "",
            "runner waits": runner["waiting"],
        }
        validators = [validator.uid for validator in world.state.validators()]
        for uid, node in world.state.table("nodes").items():
            if node["evicted"]:
                views[f"{world.names.get(uid, uid)} is out"] = "evicted"
        views["validators"] = " ".join(sorted(world.names.get(uid, uid) for uid in validators))
        return views

    def _news(self) -> list[str]:
        before, self._seen = self._seen, self._views()
        return [
            f"{view}: {text}" if text else f"{view}: nothing"
            for view, text in self._seen.items()
            if text != before.get(view)
        ]

    def digest(self, name: str) -> str:
        self._digests[sha(name).hex()] = name
        return name

    # Commands

    def do_member(self, name: str, **options: Any) -> None:
        self.world.add(name, **options)

    def do_join(self, name: str, **options: Any) -> Verdict:
        if options.get("parent"):
            options["parent"] = self.world.uid(options["parent"])
        return self.world.join(name, **options)

    def do_leave(self, name: str) -> Verdict:
        return self.world.do(name, "node.leave", uid=self.world.uid(name))

    def do_evict(self, sender: str, name: str) -> Verdict:
        return self.world.evict(sender, name)

    def do_accuse(self, reporter: str, accused: str, first: str, second: str) -> Verdict:
        one, other = (self.world.statement(accused, block) for block in (first, second))
        return self.world.accuse(reporter, one, other)

    def do_recover(self, sender: str, *names: str) -> Verdict:
        return self.world.recover(sender, *names)

    def do_admit(self, sender: str, ca: str) -> Verdict:
        body = ca.encode().ljust(70)
        verdict = self.world.do(sender, "ca.admit", der=b"\x30" + bytes([len(body)]) + body)
        verdict.result.pop("fingerprint", None)
        return verdict

    def do_train(self, name: str, **options: Any) -> Verdict:
        """`args.f=1` is an entry of mergeArgs."""
        given = {key: options.pop(key) for key in list(options) if key.startswith("args.")}
        merge_args = {key.removeprefix("args."): value for key, value in given.items()}
        return self.world.train(name, merge_args=merge_args, **options)

    def do_checkin(self, name: str, *flags: str, **options: Any) -> Verdict:
        for key in ("root", "schema", "base"):
            if isinstance(options.get(key), str):
                options[key] = None if options[key] == "none" else sha(self.digest(options[key]))
        if "tensors" in options:
            options["tensors"] = options["tensors"].split(",")
        return self.world.checkin(name, **dict.fromkeys(flags, True), **options)

    def do_close(self, name: str, **options: Any) -> Verdict:
        return self.world.close(name, **options)

    def do_merged(self, name: str, digest: str, **options: Any) -> Verdict:
        return self.world.merged(name, self.digest(digest), **options)

    def do_suspect(self, name: str, *accused: str, **options: Any) -> Verdict:
        return self.world.suspect(name, *accused, **options)

    def do_lost(self, reporter: str, name: str) -> Verdict:
        return self.world.lost(reporter, name)

    def do_quit(self, name: str, **options: Any) -> Verdict:
        uid = self.world.uid(name)
        return self.world.do(name, "contract.leave", contract=DEFAULT_CONTRACT, uid=uid, **options)

    def do_faults(self) -> list[str]:
        return [
            f"round {one['round']}, attempt {one['attempt']}: {one['name']}, says {one['by']}:"
            f" {one['why']}"
            for one in self.world.contract["faults"]
        ]

    def do_report(self, name: str, **options: Any) -> Verdict:
        about = {"round": 0, "loss": "0.5", "metric": "0.9", "epochs": 1, "total_epochs": 4}
        options = {key: str(v) if key in ("loss", "metric") else v for key, v in options.items()}
        uid = self.world.uid(name)
        return self.world.do(
            name, "round.report", contract=DEFAULT_CONTRACT, uid=uid, **{**about, **options}
        )

    def do_round(self, digest: str, **losses: Any) -> list[str]:
        """A whole round of all learners, who report these losses of its model; the pace then."""
        number, names = self.world.contract["round"], list(losses)
        said = [self.do_checkin(name) for name in names]
        said += [self.do_merged(name, digest, round=number) for name in names]
        said += [
            self.do_report(name, round=number, loss=loss)
            for name, loss in losses.items()
            if loss != "none"
        ]
        self._seen = self._views()
        wrong = [f"{one.code}: {one.text}" for one in said if not one.ok]
        return wrong or [f"the next merge is after {self.world.contract['interval']} batches"]

    def do_reset_contract(self, sender: str = "swci-1") -> Verdict:
        return self.world.do(sender, "contract.reset", contract=DEFAULT_CONTRACT)

    def do_reset_runner(self, sender: str = "swci-1") -> Verdict:
        return self.world.do(sender, "runner.reset", runner=DEFAULT_RUNNER)

    def do_task(self, name: str, kind: str, prereq: str = "ROOTTASK") -> None:
        self.world.task(name, kind, prereq)

    def do_assign(
        self, task: str, peers: str = "0", target: str = "*", among: str | None = None
    ) -> Verdict:
        """`among` are names with commas."""
        those = None if among is None else str(among).split(",")
        return self.world.assign(task, int(peers), target, those)

    def do_enroll(self, name: str, pairs: str = "1") -> Verdict:
        return self.world.take_part(name, int(pairs))

    def do_status(self, name: str, state: str, **options: Any) -> Verdict:
        return self.world.status(name, state, **options)

    def do_stale_status(self, name: str, state: str) -> Verdict:
        return self.world.status(name, state, operation="0" * 16)

    def do_names(self, table: str) -> list[str]:
        return [" ".join(self.world.state.keys(table))]

    def do_tx(self, sender: str, op: str, **options: Any) -> Verdict:
        """`uid` is given as a name."""
        if "uid" in options:
            options["uid"] = self.world.uid(options["uid"])
        return self.world.do(sender, op, **options)

    def do_members(self) -> list[str]:
        return [
            f"{member['name']}: {member['state']}, missed {member['missed']}"
            + (f", loss {member['loss']}, metric {member['metric']}" if member["loss"] else "")
            + (", done" if member["done"] else "")
            for member in sorted(self.world.contract["members"].values(), key=lambda m: m["name"])
        ]

    def do_last(self) -> list[str]:
        last = self.world.contract["last"]
        if last is None:
            return ["no round is decided"]
        names = [self.world.names[uid] for uid in last["holders"]]
        return [f"round {last['round']}: {last['digest'].hex()} held by {' '.join(sorted(names))}"]

    def do_peers(self) -> list[str]:
        runner = self.world.runner
        rows = [*sorted(runner["swops"].items()), *sorted(runner["peers"].items())]
        return sorted(
            self._readable(f"{key}: {row['state']} {row['text']}".rstrip()) for key, row in rows
        )


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _contract_line(contract: dict[str, Any]) -> str:
    line = f"{contract['status']}, round {contract['round']}"
    if contract["status"] == "MERGING":
        line += f", attempt {contract['attempt']}, roster {len(contract['roster'])}: "
        line += " ".join(sorted(contract["members"][uid]["name"] for uid in contract["roster"]))
    return line


def _runner_line(runner: dict[str, Any]) -> str:
    if runner["state"] == "IDLE":
        return "IDLE"
    return f"{runner['state']}, task {runner['task']}, needed {runner['needed']}"
