"""PULL_IMAGE against a registry of the test's own: three kinds of login, and what goes wrong."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from swarm.errors import LocalError
from swop.docker_runtime import DockerRuntime
from swop.process_runtime import ProcessRuntime
from swop.pulling import Login, PullRequest, changes, credentials, masked
from swop.work import Work
from tests.engine import images
from tests.swop import registry as registries
from tests.swop.programs import eventually
from tests.swop.registry import PASSWORD, USER, Registry

LOGIN = Login(USER, PASSWORD)
needs_engine = pytest.mark.docker


def config(path: Path, registry: str, password: str = PASSWORD, **more: Any) -> str:
    """A docker config.json, as `docker login` writes it."""
    login = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry: {"auth": login}}, **more}))
    return str(path)


# ------------------------------------------------------------------ without an engine


def request(login: Login | str | None, directory: Path) -> PullRequest:
    return PullRequest("t", "o", "registry.example:5000/team/tool", "1", login, str(directory))


def test_the_three_kinds_of_login(tmp_path: Path) -> None:
    assert credentials(request(None, tmp_path)) == {}
    assert credentials(request(LOGIN, tmp_path)) == {"username": USER, "password": PASSWORD}
    # Credential helpers are programs, and are not run: here it would be one that does not exist.
    path = config(tmp_path / "config.json", "https://registry.example:5000/v1/", credsStore="none")
    for name in (path, "config.json"):
        found = credentials(request(name, tmp_path))
        assert (found["username"], found["password"]) == (USER, PASSWORD)
    assert PASSWORD not in repr(request(LOGIN, tmp_path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("secret text", "is no docker config.json with logins"),
        ("[]", "is no docker config.json with logins"),
        ('{"auths": ["secret"]}', "is no docker config.json with logins"),
        ('{"auths": {"registry.example:5000": "secret"}}', "is no docker config.json with logins"),
        ('{"auths": {"registry.example:5000": {"auth": "secret"}}}', "is no docker config.json"),
        ('{"auths": {"registry.example": {"auth": "c2VjcmV0OnNlY3JldA=="}}}', "has no login for"),
        ('{"auths": {"registry.example:5000": {}}}', "has no login for registry.example:5000"),
        ("{" * 100_000, "is no docker config.json"),
        (" " * (2 << 20), "is no docker config.json"),
    ],
)
def test_a_file_that_does_not_help_and_is_not_told(
    tmp_path: Path, content: str, expected: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LocalError) as caught:
        credentials(request("config.json", tmp_path))
    assert caught.value.code == "SW7030"
    assert expected in caught.value.cause
    assert "secret" not in str(caught.value)


def test_only_files_that_were_set_aside_for_it(tmp_path: Path) -> None:
    (tmp_path / "logins").mkdir()
    path = config(tmp_path / "config.json", "registry.example:5000")
    (tmp_path / "logins" / "link").symlink_to(path)
    for name, expected in (
        (path, "is not below"),
        ("../config.json", "is not below"),
        ("link", "is not below"),
        ("none", "No such file or directory"),
        (".", "is no docker config.json"),
    ):
        with pytest.raises(LocalError, match=f"SW7030: .*{expected}"):
            credentials(request(name, tmp_path / "logins"))


def test_secrets_are_in_no_text() -> None:
    mask = masked({"username": USER, "password": PASSWORD})
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    said = mask.line(f"no {PASSWORD}, Basic {pair}, http://{USER}:{PASSWORD}@h")
    assert PASSWORD not in said and pair not in said


def test_only_changes_are_told() -> None:
    items = [
        {"status": "Pulling from team/tool", "id": "1"},
        {"status": "Downloading", "id": "a", "progress": "[=> ]"},
        {"status": "Downloading", "id": "a", "progress": "[==>]"},
        {"status": "Pull complete", "id": "a"},
        {"status": "Digest: x"},
    ]
    expected = ["1: Pulling from team/tool", "a: Downloading", "a: Pull complete", "Digest: x"]
    assert list(changes(items)) == expected
    with pytest.raises(LocalError, match="SW7029: denied"):
        list(changes([{"error": "denied"}]))


def test_under_process_the_local_environment_is_checked_instead(tmp_path: Path) -> None:
    runtime = ProcessRuntime("a" * 32, tmp_path / "data")
    said = runtime.pull(request(None, tmp_path), Work())
    assert said.startswith("No image was pulled under PROCESS : the local environment (Python ")
    assert said.endswith("was checked and recorded as o")
    assert runtime.has_image("o")
    runtime.close()


# ------------------------------------------------------------------ with an engine


@pytest.fixture
def client(engine: None) -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def runtime(engine: None) -> Iterator[DockerRuntime]:
    runtime = DockerRuntime(uuid.uuid4().hex, images.NODE)
    yield runtime
    runtime.close()


@pytest.fixture
def outcome(client: docker.DockerClient) -> Iterator[str]:
    name = f"swarm-test-{uuid.uuid4().hex[:8]}"
    yield name
    for image in client.images.list():
        if any(name in tag or "/team/tool:" in tag for tag in image.tags):
            client.images.remove(image.id, force=True)


def wanted(
    registry: Registry, outcome: str, login: Login | str | None, logins: Path
) -> PullRequest:
    return PullRequest("t", outcome, f"{registry.name}/team/tool", "2.1", login, str(logins))


def content_of(client: docker.DockerClient, image: str) -> bytes:
    """The file of the image; it has no program that could print it."""
    container = client.containers.create(image, ["/none"])
    chunks, _ = container.get_archive("/content")
    data = b"".join(chunks)
    container.remove()
    return data


@needs_engine
@pytest.mark.parametrize("auth", ["", "Basic", "Bearer"])
def test_an_image_with_the_right_login(
    runtime: DockerRuntime,
    client: docker.DockerClient,
    outcome: str,
    tmp_path: Path,
    auth: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = uuid.uuid4().bytes
    with registries.serve(auth, content) as registry, caplog.at_level("DEBUG"):
        path = config(tmp_path / "config.json", registry.name)
        login: Login | str | None = {"": None, "Basic": path, "Bearer": LOGIN}[auth]
        told: list[str] = []
        lines: list[str] = []
        work = Work(told.append, lines.append)
        said = runtime.pull(wanted(registry, outcome, login, tmp_path), work)
        assert content in content_of(client, outcome)
        assert runtime.has_image(f"{outcome}:latest")
    assert said.startswith(
        f"Pull Task Completed : image {outcome} is {registry.name}/team/tool:2.1"
    )
    assert told == [f"Pulling image {registry.name}/team/tool:2.1"]
    assert any("Pull complete" in line for line in lines)
    assert any("Status: Downloaded newer image" in line for line in lines)
    assert PASSWORD not in caplog.text + said + "".join([*told, *lines])


@needs_engine
def test_what_goes_wrong_is_told_without_the_password(
    runtime: DockerRuntime, outcome: str, tmp_path: Path
) -> None:
    wrong = Login(USER, "wr0ng-word")
    for auth, expected in (
        ("Basic", "no basic auth credentials|unauthorized|authentication"),
        ("Bearer", "unauthorized|authentication|denied"),
    ):
        with registries.serve(auth) as registry:
            for login in (None, wrong, config(tmp_path / "c", registry.name, "wr0ng-word")):
                with pytest.raises(LocalError, match=f"SW7029: .*({expected})") as caught:
                    runtime.pull(wanted(registry, outcome, login, tmp_path), Work())
                assert "wr0ng-word" not in str(caught.value)
    with registries.serve() as registry:
        none = replace(wanted(registry, outcome, None, tmp_path), repository=f"{registry.name}/x/y")
        with pytest.raises(LocalError, match=r"SW7029: .*(manifest unknown|not found)"):
            runtime.pull(none, Work())
    with pytest.raises(LocalError, match="SW7029"):
        runtime.pull(none, Work())  # nobody listens there any more
    assert not runtime.has_image(outcome)


@needs_engine
def test_a_pull_that_hangs_is_given_up(
    runtime: DockerRuntime, outcome: str, tmp_path: Path
) -> None:
    work, said = Work(), []
    with registries.serve() as registry:
        registry.hangs = True

        def run() -> None:
            try:
                runtime.pull(wanted(registry, outcome, None, tmp_path), work)
            except LocalError as fault:
                said.append(str(fault))

        threading.Thread(target=run, daemon=True).start()
        eventually(lambda: registry.asked)
        work.give_up("the taskrunner was reset")
        assert "SW7020" in eventually(lambda: said)[0]
        assert not runtime.has_image(outcome)


@needs_engine
def test_the_image_of_the_nodes_is_not_replaced(
    runtime: DockerRuntime, client: docker.DockerClient, tmp_path: Path
) -> None:
    """Else a task could run its own program in the place of the learners, with their key."""
    before = client.images.get(images.NODE).id
    with registries.serve() as registry:
        for name in (
            images.NODE,
            images.NODE.partition(":")[0],
            f"docker.io/library/{images.NODE}",
        ):
            with pytest.raises(LocalError, match=r"SW7031: .* is the image of this host's nodes"):
                runtime.pull(wanted(registry, name, None, tmp_path), Work())
        assert registry.asked == []
    assert client.images.get(images.NODE).id == before
