"""What may leave a host: told by allow-lists, and texts without what those withheld."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from swarm.api import taskdef
from swarm.collect.redact import CONTAINER, VARIABLES, WITHHELD, YAML_KEYS, Redactor
from swop import profile

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"


def test_names_of_variables_stay_and_values_of_unknown_ones_do_not() -> None:
    redactor = Redactor()
    told = redactor.environment({"SN_API_SERVER_PORT": "30304", "DB_PASSWORD": "hunter2", "X": ""})
    assert told == {"SN_API_SERVER_PORT": "30304", "DB_PASSWORD": WITHHELD, "X": WITHHELD}
    assert redactor.text("connecting with hunter2 now") == f"connecting with {WITHHELD} now"


def test_variables_that_may_hold_access_keys_are_not_on_the_list() -> None:
    assert not VARIABLES & {"SWARM_ETH_RPC", "http_proxy", "https_proxy", "HTTP_PROXY"}


def test_a_piece_of_a_withheld_value_is_withheld_too() -> None:
    redactor = Redactor()
    redactor.environment({"RPC": "https://node.example/v3/4fKq9zz", "DATA": "/data/user1"})
    assert redactor.text("POST /v3/4fKq9zz: 403") == f"POST /v3/{WITHHELD}: 403"
    assert redactor.text("reads data of the user") == "reads data of the user"


def test_every_key_of_tasks_and_profiles_is_told_but_logins() -> None:
    def keys(model: Any) -> Iterator[str]:
        for name, info in model.model_fields.items():
            yield info.validation_alias if isinstance(info.validation_alias, str) else name

    inner = [m for m in vars(profile).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    models = [*taskdef.BODIES.values(), taskdef.SharedMount, taskdef.ContentOperation, *inner]
    known = {key.lower() for model in models for key in keys(model)} - {"auth"}
    assert known <= YAML_KEYS, known - YAML_KEYS
    assert not {"auth", "username", "password"} & YAML_KEYS


def test_what_is_everywhere_stays_in_logs() -> None:
    """`5` as the value of a variable is no secret, and every log has it."""
    redactor = Redactor()
    redactor.environment({"A": "5", "B": "True", "C": "abc", "D": "30304"})
    text = "epoch 5 of 5: True, abc, port 30304"
    assert redactor.text(text) == text


def test_a_container_is_told_by_a_list() -> None:
    redactor = Redactor()
    told = redactor.shaped(
        {
            "Id": "1",
            "Path": "python3",
            "Args": ["train.py", "--token=abcdefgh"],
            "GraphDriver": {"Data": "geheim"},
            "State": {"ExitCode": 1, "Error": "exec geheim", "Health": {"Log": ["geheim"]}},
            "Config": {
                "Image": "u:p@registry/x",
                "Env": ["SWARM_NODE_NAME=sn1", "TOKEN=abcdefgh", "EMPTY"],
                "Labels": {"swarm.component": "sn", "site": "Klinik"},
                "Entrypoint": ["python3"],
                "Cmd": ["python3", "-m", "sentinel", "--password=abcdefgh"],
            },
            "Mounts": [{"Type": "bind", "Source": "/a", "Secret": "geheim"}],
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "1.1.1.1", "MacAddress": "x"}}},
        },
        CONTAINER,
    )
    assert told == {
        "Id": "1",
        "State": {"ExitCode": 1, "Health": {}},
        "Config": {
            "Image": "u:p@registry/x",
            "Labels": {"swarm.component": "sn", "site": WITHHELD},
            "Env": {"SWARM_NODE_NAME": "sn1", "TOKEN": WITHHELD, "EMPTY": WITHHELD},
            "Entrypoint": ["python3"],
            "Cmd": ["python3", "-m", "sentinel", WITHHELD],
        },
        "Mounts": [{"Type": "bind", "Source": "/a"}],
        "NetworkSettings": {"Networks": {"n": {"IPAddress": "1.1.1.1"}}},
    }
    assert "abcdefgh" not in redactor.text("the program said abcdefgh")


TASK = """
Name: pull  # password of the registry: geheim-1
TaskType: PULL_IMAGE
Prereq: ROOTTASK
Body:
    Auth: {UserName: me, Password: geheim-2}
    OrgAndReg: hpe
    Envvars:
    - MAX_EPOCHS: 5
    - API: geheim-3
    Src: https://me:geheim-4@host/file?signature=geheim-5
    BuildSteps:
    - FROM python
    - ENV KEY=geheim-6
    - RUN pip install numpy
    - RUN curl -H "Authorization: Bearer geheim-7" x
    Surprise: [geheim-8, {deep: geheim-9}]
"""


def test_a_task_is_told_by_its_keys() -> None:
    redactor = Redactor()
    told = redactor.yaml(TASK)
    assert "geheim" not in told
    body = yaml.safe_load(told)["Body"]
    assert body["Auth"] == WITHHELD
    assert body["Envvars"] == [{"MAX_EPOCHS": "5"}, {"API": WITHHELD}]
    assert body["BuildSteps"][::2] == ["FROM python", "RUN pip install numpy"]
    assert body["Src"] == f"https://{WITHHELD}@host/file?{WITHHELD}"
    log = redactor.text("geheim-2 geheim-3 geheim-6 geheim-8 geheim-9")
    assert "geheim" not in log


def test_a_profile_is_told_but_for_variables_and_labels() -> None:
    from tests.swop.test_profile import PROFILE

    told = yaml.safe_load(Redactor().yaml(PROFILE))
    (node,) = told["nodes"]
    assert told["network"] == "host-1-net" and node["slnodedef"]["slport"] == 16000
    assert node["slnodedef"]["identity"][0]["attribute"]["src"] == "/certs/sl-1-key.pem"
    assert {"SL_LOG_LEVEL": "INFO"} in told["envvars"]
    assert {"VERSION": WITHHELD} in told["envvars"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a {KEY} b", f"a {WITHHELD} b"),
        (KEY[:40], WITHHELD),  # its end was cut off
        ("password=geheim x", f"password={WITHHELD} x"),
        ('{"db_token": "ge heim"}', f'{{"db_token": {WITHHELD}}}'),
        ("API_KEY: 'ge heim' y", f"API_KEY: {WITHHELD} y"),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: Bearer {WITHHELD}"),
        ("postgres://u:geheim@host/db", f"postgres://{WITHHELD}@host/db"),
        ("the taskrunner waits for a token bucket", "the taskrunner waits for a token bucket"),
        ("SW1203: certificate expired", "SW1203: certificate expired"),
    ],
)
def test_free_text(text: str, told: str) -> None:
    assert Redactor().text(text) == told


SECRETS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=12, max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | SECRETS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["Auth", "unknown", "Password", "Envvars"]), VALUES), SECRETS
)
def test_no_value_below_an_unknown_key_is_told(document: dict[str, object], secret: str) -> None:
    redactor = Redactor()
    told = redactor.yaml(yaml.safe_dump({"Body": {**document, "More": {"x": [secret]}}}))
    assert secret not in told
    assert secret not in redactor.text(f"log: {secret}!")


def test_only_what_looks_like_a_profile_or_a_task_is_told() -> None:
    for text in (KEY, "- a\n- b", "word"):
        with pytest.raises(ValueError, match="neither a profile nor a task"):
            Redactor().yaml(text)
