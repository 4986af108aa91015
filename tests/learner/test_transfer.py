"""Narrow floats through whole rounds, and numbers that are not finite at check-in."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.learner.vectors import NEXT, Vectors
from swarmlearning import link, tensors
from swarmlearning.narrow import TRANSFER, narrow, widen
from swarmlearning.numpy import SwarmCallback, SwarmError
from swarmlearning.tensors import DTYPES, Layout
from tests.learner.conftest import Swarm
from tests.learner.program import Host

Arrays = dict[str, NDArray[Any]]


def model(seed: int) -> Arrays:
    """Tensors of all widths, some empty and some without a shape."""
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(size=(300, 7)).astype(np.float32),
        "precise": rng.normal(size=1001),
        "half": rng.normal(size=130).astype(np.float16),
        "scale": np.float32(rng.normal()).reshape(()),
        "steps": np.int64(seed * 1000).reshape(()),
        "mask": np.array([True, seed > 0, seed > 1]),
        "nothing": np.empty((0, 5), np.float32),
    }


def open_all(hosts: list[Host], transfer: str, min_peers: int = 0) -> None:
    args = {"transferDtype": transfer} if transfer else {}
    for host in hosts:
        host.program.send_open(min_peers=min_peers or len(hosts), mergeArgs=args)
    for host in hosts:
        host.program.receive("opened")


def same(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> bool:
    return all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(left.values(), right.values(), strict=True)
    )


def sent(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """What the others get of a float array."""
    if array.dtype.kind != "f" or DTYPES[kind].itemsize >= array.itemsize:
        return array
    out = np.empty(array.shape, DTYPES[kind])
    narrow(array, kind, out)
    return widen(out, kind, array.dtype.name)


@pytest.mark.parametrize("kind", TRANSFER)
def test_what_travels_narrow_ends_equal_and_within_the_bounds(swarm: Swarm, kind: str) -> None:
    hosts = [swarm.start(number) for number in range(3)]
    open_all(hosts, kind)
    models = [model(number) for number in range(3)]
    for host, arrays in zip(hosts, models, strict=True):
        host.program.send_sync(arrays)
    merged = [host.program.merged()[1] for host in hosts]
    assert same(merged[0], merged[1])
    assert same(merged[0], merged[2])
    for name, got in merged[0].items():
        own = models[0][name]
        assert (got.dtype, got.shape) == (own.dtype, own.shape)
        if got.dtype.kind != "f":
            continue
        inputs = np.array([arrays[name] for arrays in models], np.float64)
        exact, size = inputs.mean(axis=0), np.abs(inputs).mean(axis=0)
        narrowed = DTYPES[kind].itemsize < own.itemsize
        step = TRANSFER[kind].relative if narrowed else float(np.finfo(own.dtype).eps)
        # Each contribution is rounded once, and so is the result; float32 adds up, with shares of
        # its own, and is on the way from float64.
        sums = (len(models) + 1 + (own.dtype == np.float64)) * 2.0**-24 * size
        bound = step * size + step * np.abs(exact) + sums + 2 * TRANSFER[kind].absolute
        assert np.all(np.abs(got - exact) <= 1.01 * bound)
        assert same({name: got}, {name: sent(got, kind)}), "an exact widening"
    assert merged[0]["steps"] == 1000
    hosts[0].program.receive("saved")
    with tensors.open(hosts[0].program.folder / link.MERGED) as file:
        layout = file.layout
    assert layout == Layout.of(models[0], kind)
    assert swarm.ledger.record("schemas", "defaultbb.cqdb.sml.hpe")["size"] == layout.size


def test_half_the_bytes_travel(swarm: Swarm) -> None:
    """2·M·(n-1)/n from each learner, M being the size in the transfer type."""
    hosts = [swarm.start(number) for number in range(3)]
    open_all(hosts, "float16")
    for number, host in enumerate(hosts):
        host.program.send_sync({"kernel": np.full(1 << 22, number, np.float32)})
    for host in hosts:
        host.program.merged()
    bell = threading.Event()
    for host in hosts:
        exchange = host.learner._exchange
        assert exchange is not None
        while not exchange.delivered():
            bell.wait(0.01)
        assert exchange.bytes_sent == pytest.approx(2 * (2 << 22) * 2 / 3, rel=0.02)


def test_a_late_joiner_fetches_the_narrow_model(swarm: Swarm) -> None:
    first = [swarm.start(number) for number in range(2)]
    open_all(first, "bfloat16")
    for number, host in enumerate(first):
        host.program.send_sync(model(number))
    (_, decided), _ = [host.program.merged() for host in first]
    late = swarm.start(2)
    late.program.send_open(min_peers=2, mergeArgs={"transferDtype": "bfloat16"})
    assert late.program.receive("opened")["hasModel"] is True
    assert same(late.program.weights(), decided)
    for host in first:
        host.program.report(0)
    for host in (*first, late):
        host.program.send_sync(decided)
    for host in (*first, late):
        message, merged = host.program.merged()
        assert (message["round"], message["peers"]) == (1, 3)
        assert same(merged, decided), "narrowing what is narrow already changes nothing"


def test_an_active_finisher_brings_the_narrow_model_again(swarm: Swarm) -> None:
    """The decided model is its contribution then, byte for byte; thrice the same is the same."""
    one, two = swarm.start(1), swarm.start(2)
    for host, mode in ((one, "active"), (two, "snapshot")):
        host.program.send_open(mode=mode, mergeArgs={"transferDtype": "float16"})
    for host in (one, two):
        host.program.receive("opened")
    one.program.send_finish(model(1))
    two.program.send_sync(model(2))
    answers = [host.program.merged() for host in (one, two)]
    files = [(one.program.folder / link.MERGED).read_bytes()]
    one.program.report(0)
    two.program.report(0)
    two.program.send_sync(answers[1][1])
    for host in (one, two):
        message, merged = host.program.merged()
        assert (message["round"], message["peers"]) == (1, 2)
        assert same(merged, answers[0][1])
    files.append((one.program.folder / link.MERGED).read_bytes())
    assert files[0] == files[1]


def test_weights_stored_in_another_way_than_the_rules_say_are_refused(swarm: Swarm) -> None:
    host = swarm.start(1)
    open_all([host], "float16")
    host.program.transfer = "bfloat16"
    host.program.send_sync(model(1))
    error = host.program.receive("error")
    assert error["code"] == "SW6003"
    assert "transferDtype float16" in error["text"]


def test_all_programs_need_the_same_transfer_type(swarm: Swarm) -> None:
    one, two = swarm.start(1), swarm.start(2)
    open_all([one], "float16", min_peers=2)
    two.program.send_open(mergeArgs={"transferDtype": "bfloat16"})
    error = two.program.receive("error")
    assert "float16" in error["text"]
    assert "bfloat16" in error["text"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_under_mean_what_is_not_finite_is_refused_where_it_comes_from(
    swarm: Swarm, bad: float
) -> None:
    """Its own program is told which tensor it is; the others go on without it."""
    hosts = [swarm.start(number) for number in range(3)]
    open_all(hosts, "", min_peers=2)
    wrong = model(0)
    wrong["precise"][500] = bad
    for number, host in enumerate(hosts):
        host.program.send_sync(wrong if number == 0 else model(number))
    error = hosts[0].program.receive("error")
    assert error["code"] == "SW6014"
    assert "tensor 'precise' of this node: NaN or infinity" in error["text"]
    results = [host.program.merged() for host in hosts[1:]]
    assert [message["peers"] for message, _ in results] == [2, 2]
    assert all(np.isfinite(array).all() for array in results[0][1].values())


def test_what_does_not_fit_the_transfer_type_is_refused_and_said(swarm: Swarm) -> None:
    host = swarm.start(1)
    open_all([host], "float16")
    arrays = model(1)
    arrays["kernel"][3, 3] = 1e6
    host.program.send_sync(arrays)
    error = host.program.receive("error")
    assert error["code"] == "SW6014"
    assert "'kernel'" in error["text"]
    assert "65504, the largest float16 (transferDtype)" in error["text"]


@pytest.mark.parametrize(("method", "kind"), [("coordmedian", ""), ("geomedian", "float16")])
def test_a_robust_method_leaves_out_what_is_not_finite_and_says_so(
    swarm: Swarm, method: str, kind: str
) -> None:
    """Its program hears of it, and gets the others' result as they do."""
    hosts = [swarm.start(number) for number in range(3)]
    args = {"transferDtype": kind} if kind else {}
    for host in hosts:
        host.program.send_open(min_peers=3, mergeMethod=method, mergeArgs=args)
    for host in hosts:
        host.program.receive("opened")
    wrong = model(0)
    wrong["precise"][::2] = 1e6 if kind else np.nan
    for number, host in enumerate(hosts):
        host.program.send_sync(wrong if number == 0 else model(number))
    merged = [host.program.merged()[1] for host in hosts]
    assert same(merged[0], merged[1])
    assert same(merged[0], merged[2])
    got, others = merged[0]["precise"][::2], [model(n)["precise"][::2] for n in (1, 2)]
    slack = 1e-3 * np.abs(got)
    assert np.all((got >= np.min(others, axis=0) - slack) & (got <= np.max(others, axis=0) + slack))
    said = [text for text in hosts[0].program.heard if "'precise'" in text]
    assert said and f"{method} leaves out what is not finite" in said[0]


def test_a_restarted_learner_finds_the_narrow_model(tmp_path: Path) -> None:
    """It goes on from its predecessor's file, and programs read the same from it."""
    arrays = model(3)
    memory = tensors.allocate(Layout.of(arrays, "float16"))
    memory.write(arrays)
    before, after = Vectors(tmp_path), Vectors(tmp_path)
    before.share(os.dup(memory.descriptor))
    ready = before.prepare(False, "float16")
    buffers = before.buffers(in_place=True)
    before.keep("contract", 0, ready.root.hex(), buffers.leaves)
    before.save()
    before.close()
    (tmp_path / NEXT).write_bytes(b"half a round")
    assert after.left_behind(ready.root.hex()) == (link.MERGED, buffers.leaves)
    after.keep("contract", 0, ready.root.hex(), buffers.leaves)
    with tensors.open(tmp_path / link.MERGED) as file:
        assert file.layout == Layout.of(arrays, "float16")
        assert same(file.arrays(), {name: sent(a, "float16") for name, a in arrays.items()})
    after.close()


@pytest.fixture
def linked(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> Swarm:
    """A swarm of one learner, which a callback finds."""
    host = swarm.start(1)
    host.program.close()
    monkeypatch.setenv("SWARM_LINK", str(host.program.folder))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return swarm


def test_a_callback_gets_the_narrow_model_in_its_own_types(linked: Swarm) -> None:
    before = {name: array + 0 for name, array in model(1).items() if array.dtype.kind != "b"}
    callback = SwarmCallback(1, 1, transferDtype="bfloat16")
    after = callback.on_train_begin(before)
    for name, array in before.items():
        assert (after[name].dtype, after[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(after[name], sent(array, "bfloat16"))
    assert linked.ledger.contract()["rules"]["merge_args"] == {"transferDtype": "bfloat16"}
    assert same(dict(callback.on_train_end(after)), dict(after))


def test_a_callback_raises_what_names_the_tensor(linked: Swarm) -> None:
    callback = SwarmCallback(1, 1)
    with pytest.raises(SwarmError, match="SW6014: tensor 'scale' of this node: NaN or infinity"):
        callback.on_train_begin({**model(1), "scale": np.float32(np.nan).reshape(())})
