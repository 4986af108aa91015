"""When the members of an attempt hold different results: whose shard is it?

Everybody's leaf digests are checked against the digest that it reported on the ledger, so nobody
can deny what it holds. An owner that handed out different bytes for its shard differs, in that
shard, from somebody; those whom it differs from blame it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.errors import RemoteError
from swarm.merge.attempt import Key
from swarm.merge.blocks import DIGEST, root, split
from swarm.merge.dial import HANDSHAKE, Dialler, Member
from swarm.merge.plan import Plan
from swarm.merge.sending import Refused
from swarm.merge.wire import PROTOCOL, Kind


def ask_leaves(dialler: Dialler, member: Member, key: Key, me: str, blocks: int) -> list[bytes]:
    """Leaf digests of `member`'s result. Raises RemoteError."""
    channel = dialler.dial(member)
    try:
        channel.sock.settimeout(HANDSHAKE)
        hello = {"protocol": PROTOCOL, "want": "leaves", "uid": me, **key._asdict()}
        channel.send_json(Kind.HELLO, hello)
        answer = channel.expect_json(Kind.ANSWER)
        if answer.get("ok") is not True:
            raise Refused(str(answer.get("reason"))[:40], str(answer.get("text"))[:400])
        return split(channel.expect_raw(Kind.DIGESTS, DIGEST * blocks))
    finally:
        channel.close()


def compare(
    dialler: Dialler,
    key: Key,
    me: str,
    own: Sequence[bytes],
    plan: Plan,
    members: Sequence[Member],
    reported: Mapping[str, str],
) -> dict[str, str]:
    """Uid -> why, for those to blame. `members` are the roster in order; digests are hex."""
    found: dict[str, str] = {}
    results = {me: list(own)}
    for member in members:
        if member.uid == me or member.uid not in reported:
            continue
        try:
            leaves = ask_leaves(dialler, member, key, me, plan.blocks)
        except RemoteError as fault:
            found[member.uid] = f"does not show its result: {fault.cause}"
            continue
        if root(leaves).hex() == reported[member.uid]:
            results[member.uid] = leaves
        else:
            found[member.uid] = "reported another digest than that of what it holds"
    for index, owner in enumerate(members):
        first, last = plan.shard(index)
        for uid in differing(results, owner.uid, me, first, last):
            found.setdefault(uid, f"the results differ in the shard of {owner.name}")
    return found


def changed(
    plan: Plan, members: Sequence[Member], me: str, own: Sequence[bytes], decided: Sequence[bytes]
) -> dict[str, str]:
    """Uid -> why, for owners whose shards came here with other bytes than the decided ones.

    `own` and `decided` are leaf digests of the same attempt; b"" where nothing has come.
    """
    found = {}
    for index, owner in enumerate(members):
        first, last = plan.shard(index)
        here = zip(own[first:last], decided[first:last], strict=True)
        if owner.uid != me and any(ours and ours != theirs for ours, theirs in here):
            found[owner.uid] = "had sent other bytes for its shard than were decided"
    return found


def differing(
    results: Mapping[str, Sequence[bytes]], owner: str, me: str, first: int, last: int
) -> list[str]:
    """Who is to blame for blocks `first` to `last`, seen from `me`: one uid or several, or none."""
    mine = results[me][first:last]
    others = [uid for uid, leaves in results.items() if leaves[first:last] != mine]
    if owner == me:
        return others  # they hold something else than what was sent to them
    if owner in results:
        return [owner] if owner in others else []
    return [owner] if others else []
