"""Task definitions: what is accepted, what is refused in which words, the way over the ledger."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.api.taskdef import (
    BODIES,
    MakeSwarmUserContent,
    MakeUserContainer,
    PullImage,
    RunSwarm,
    TaskDefinitionError,
    load_task,
    parse_body,
    parse_task,
)
from swarm.errors import RemoteError

# As the state machine has it for lines of a body, with tabs allowed.
_LEDGER_REFUSES = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
HEAD = "Name: t\nTaskType: {}\nAuthor: a\nPrereq: ROOTTASK\nOutcome: out\nBody:\n"
RUN = """\
    Command: main.py --epochs 3
    Entrypoint: python3
    WorkingDir: /tmp/test
    Envvars: [A: 010, B: yes, C: 1e3, D: , E: "x y", A: last]
    PrivateContent: ~
    SharedContent: ~
"""
BUILD = """\
    BuildContext: sl-cli-lib
    BuildType: INLINE
    BuildSteps:
    - FROM debian
    - ' '
"""
PULL = """\
    Tag: 2.16.1
    RepoName: tensorflow
    OrgAndReg: registry.example/tensorflow
    Auth: {Username: me, Password: secret}
"""
CONTENT = """\
    ContentType: SWARMCONTENT
    OpsList:
    -   Operation: DOWNLOAD
        Target: https://data.example/a.tar
        Options: [Out: /tmp]
"""
GOOD = {
    "RUN_SWARM": (RUN, RunSwarm),
    "MAKE_USER_CONTAINER": (BUILD, MakeUserContainer),
    "PULL_IMAGE": (PULL, PullImage),
    "MAKE_SWARM_USER_CONTENT": (CONTENT, MakeSwarmUserContent),
}


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(TaskDefinitionError) as caught:
        parse_task(text, "f.yaml")
    return caught.value.problems


@pytest.mark.parametrize("kind", BODIES)
def test_every_type_travels_over_the_ledger(kind: str) -> None:
    body, model = GOOD[kind]
    task = parse_task(HEAD.format(kind) + body, "f.yaml")
    assert isinstance(task.Body, model)
    lines = task.body_lines()
    assert all("\n" not in line for line in lines)
    assert parse_body(kind, lines, "t") == task.Body


def test_values_stay_as_they_are_written() -> None:
    body = parse_task(HEAD.format("RUN_SWARM") + RUN, "f.yaml").Body
    assert isinstance(body, RunSwarm)
    assert body.environment() == {"A": "last", "B": "yes", "C": "1e3", "D": "", "E": "x y"}
    assert body.Envvars is not None
    assert body.Envvars[0] == {"A": "010"}


def test_a_tag_that_looks_like_a_number() -> None:
    body = parse_task(HEAD.format("PULL_IMAGE") + PULL.replace("2.16.1", "1.10"), "f.yaml").Body
    assert isinstance(body, PullImage)
    assert body.Tag == "1.10"


def run_with(old: str, new: str) -> str:
    text = HEAD.format("RUN_SWARM") + RUN
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml:1: expected a mapping with Name"),
        ("- a\n- b\n", "f.yaml:1: expected a mapping with Name"),
        ("a: [1\nb: 2", "f.yaml:2: expected valid YAML"),
        (run_with("Name: t", "Name: a b"), "f.yaml:1: Name: should consist of letters"),
        (run_with("TaskType: RUN_SWARM", "TaskType: RUN"), "f.yaml:2: TaskType: input should be"),
        (run_with("Outcome: out\n", ""), "f.yaml:1: Outcome: is missing"),
        (run_with("Outcome: o", f"Outcome: {'o' * 161}"), "f.yaml:5: Outcome: string should have"),
        (run_with("Author: a", "Auther: a"), "f.yaml:3: Auther: is not a known key here"),
        (run_with("    Entrypoint: python3\n", ""), "f.yaml:6: Body.Entrypoint: is missing"),
        (run_with("WorkingDir: /tmp/test", "WorkingDir: /"), "f.yaml:9: Body.WorkingDir: string"),
        (run_with("A: 010", "1A: 2"), "f.yaml:10: Body.Envvars[0].1A: should be the name of an"),
        (run_with("[A: 010", "[{A: 1, B: 2}"), "f.yaml:10: Body.Envvars[0]: dictionary should"),
        (
            run_with("SharedContent: ~", "SharedContent:\n    - {Src: a, Tgt: b, MType: COPY}"),
            "f.yaml:13: Body.SharedContent[0].MType: input should be 'BIND' or 'VOLUME'",
        ),
        (run_with("Command: ", "Command: x\n    Command: "), "f.yaml:8: Command: is given twice"),
        (
            HEAD.format("MAKE_USER_CONTAINER") + BUILD.replace("' '", "RUN echo a: b"),
            "f.yaml:11: Body.BuildSteps[1]: should be text; put it in quotes",
        ),
        (
            HEAD.format("MAKE_USER_CONTAINER") + BUILD.replace("INLINE", "ONLINE"),
            "f.yaml:8: Body.BuildType: input should be 'INLINE' or 'REMOTE'",
        ),
        (
            HEAD.format("MAKE_SWARM_USER_CONTENT") + CONTENT.replace("DOWNLOAD", "COPY"),
            "f.yaml:9: Body.OpsList[0].Operation: input should be 'DOWNLOAD' or 'EXTRACT'",
        ),
        (
            HEAD.format("PULL_IMAGE") + PULL.replace("2.16.1", "a b"),
            "f.yaml:7: Body.Tag: should be a tag such as 2.16.1, or sha256:",
        ),
        (
            HEAD.format("PULL_IMAGE") + PULL.replace("RepoName: tensorflow", "RepoName: Tensor"),
            "f.yaml:8: Body.RepoName: should be the name of an image: lower-case letters",
        ),
        (
            HEAD.format("PULL_IMAGE") + PULL.replace("OrgAndReg: ", "OrgAndReg: https://"),
            "f.yaml:9: Body.OrgAndReg: should be a registry and an organisation",
        ),
        (
            HEAD.format("PULL_IMAGE") + PULL.replace("Password: secret", "Pass: secret"),
            "f.yaml:10: Body.Auth.Password: is missing",
        ),
        (
            HEAD.format("MAKE_SWARM_USER_CONTENT").replace("out", "my/volume") + CONTENT,
            "f.yaml:5: Outcome: should name a volume: 2 to 150 letters, digits",
        ),
        (
            HEAD.format("MAKE_SWARM_USER_CONTENT") + CONTENT.replace("https:", "ftp:"),
            "f.yaml:9: Body.OpsList[0]: its Target should begin with http://, https:// or file://",
        ),
        (
            HEAD.format("MAKE_SWARM_USER_CONTENT") + CONTENT.replace("//data", "//me:secret@data"),
            "f.yaml:9: Body.OpsList[0]: its Target should hold no user name",
        ),
        (
            HEAD.format("MAKE_SWARM_USER_CONTENT") + CONTENT.replace("/tmp]", "a, Sha256: 12]"),
            "f.yaml:11: Body.OpsList[0].Options[1]: should be `Out: path`",
        ),
        (
            HEAD.format("MAKE_SWARM_USER_CONTENT") + CONTENT.replace("/tmp", "a/../../b"),
            "f.yaml:11: Body.OpsList[0].Options[0]: should be `Out: path`",
        ),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    found = problems(text)
    assert any(one.startswith(expected) for one in found), found


def test_options_of_content_are_understood_in_any_form() -> None:
    digest = "AB" * 32
    for options in (f"[OUT: a/b, sha256: {digest}]", f"['out=a/b', 'Sha256: {digest}']"):
        text = HEAD.format("MAKE_SWARM_USER_CONTENT") + CONTENT.replace("[Out: /tmp]", options)
        body = parse_task(text, "f.yaml").Body
        assert isinstance(body, MakeSwarmUserContent)
        assert body.OpsList[0].options() == {"out": "a/b", "sha256": digest.lower()}
    local = CONTENT.replace("DOWNLOAD", "EXTRACT").replace("https://data.example/", "")
    parse_task(HEAD.format("MAKE_SWARM_USER_CONTENT") + local, "f.yaml")


def test_all_mistakes_at_once() -> None:
    text = run_with("Author: a", "Author:").replace("WorkingDir: /tmp/test", "WorkingDir: /")
    assert [one.partition(": ")[0] for one in problems(text)] == ["f.yaml:3", "f.yaml:9"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_text("#" * 300_000)
    for name, expected in (
        ("absent.yaml", "cannot be read"),
        ("binary.yaml", "is not UTF-8 text"),
        ("large.yaml", "is larger than"),
    ):
        with pytest.raises(TaskDefinitionError, match=f"SW8010: {name}: {expected}"):
            load_task(tmp_path / name, name)


def test_a_foreign_body_is_a_remote_fault() -> None:
    with pytest.raises(
        RemoteError, match=r"SW8010: body of task t: line 1: Entrypoint: is missing"
    ):
        parse_body("RUN_SWARM", ["Command: x"], "t")
    with pytest.raises(RemoteError, match="SW8010: task t has the unknown type"):
        parse_body("ROOT_TASK", [], "t")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.sampled_from([*"[]{}:,-&*!|>'\"#?\n ", "a", "Body", "&a", "*a", "!!int "])).map(
            "".join
        ),
    )
)
def test_hostile_bodies(text: str) -> None:
    for kind in BODIES:
        with pytest.raises(RemoteError):
            parse_body(kind, text.split("\n"), "t")


def test_yaml_bombs() -> None:
    """Aliases that would expand to 2**60 entries, and very deep nesting."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    for body in (lines, ["[" * 20_000], ["&a [*a]"], ["Command: &a [*a]"]):
        with pytest.raises(RemoteError, match="SW8010"):
            parse_body("RUN_SWARM", body, "t")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(max_size=160), min_size=1, max_size=20),
    st.one_of(st.none(), st.text("abc-_ :#", min_size=3, max_size=20)),
)
def test_any_text_survives_the_ledger(steps: list[str], context: str | None) -> None:
    try:
        body = MakeUserContainer(BuildContext=context, BuildType="INLINE", BuildSteps=steps)
    except ValueError as fault:
        assert "control characters" in str(fault)
        return
    task = parse_task(HEAD.format("MAKE_USER_CONTAINER") + BUILD, "f.yaml")
    lines = task.model_copy(update={"Body": body}).body_lines()
    assert parse_body("MAKE_USER_CONTAINER", lines, "t") == body
    assert not any(_LEDGER_REFUSES.search(line) for line in lines)
