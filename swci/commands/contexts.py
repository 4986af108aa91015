"""Commands about contexts: which network node is talked to, with which settings."""

from __future__ import annotations

from collections.abc import Mapping

from swarm import address
from swci.command import ABSENT, DOWN, WRONG_ARGUMENT, Command, CommandError
from swci.output import Output
from swci.ports import Client
from swci.result import Field, Result, field, fields, names, said
from swci.session import Context, Session

API_PORT = 30304
RETRY_SECONDS = 5.0
RETRIES = 360
UP = "API Server is UP!"

Args = Mapping[str, str]


def create_with_ip(session: Session, args: Args, out: Output) -> Result:
    port = port_of(args.get("port", str(API_PORT)))
    return _create(session, out, args["context"], args["host"], port, service=False)


def create_with_service(session: Session, args: Args, out: Output) -> Result:
    host, port = service_address(args["service"])
    return _create(session, out, args["context"], host, port, service=True)


def _create(
    session: Session, out: Output, name: str, host: str, port: int, *, service: bool
) -> Result:
    if name in session.contexts:
        raise CommandError("SW8029", f"a context {name} exists already")
    client = session.connect(host, port)
    try:
        reasons: list[str] = []
        if not client.wait_up(timeout=0, on_wait=reasons.append):
            why = reasons[-1] if reasons else f"{host}:{port} does not answer"
            raise CommandError(DOWN, f"API Server is DOWN! {why}")
        out.line(UP)
        version = str(client.version().get("version", ""))
    except BaseException:
        client.close()
        raise
    session.contexts[name] = Context(
        name, host, port, service, client, session.default_env(), version
    )
    return said(f"CONTEXT CREATED : {name}", context=name)


def switch(session: Session, args: Args, out: Output) -> Result:
    session.active = session.context(args["context"])
    return said(f"DEFAULT CONTEXT SET TO : {session.active.name}", context=session.active.name)


def list_contexts(session: Session, args: Args, out: Output) -> Result:
    return names(session.contexts)


def get_info(session: Session, args: Args, out: Output) -> Result:
    context = session.context(args.get("context"))
    return fields(
        field("CONTEXT NAME", context.name),
        field("API SERVICE" if context.service else "API SERVER IP", context.host),
        field("API SERVER PORT", context.port),
        field("VERSION", context.version),
        _environment(context, "ENV : "),
    )


def _environment(context: Context, before: str = "") -> Field:
    """All settings, each on a line."""
    settings = dict(sorted(context.env.items()))
    return Field("env", settings, tuple(f"{before}{k}={v}" for k, v in settings.items()))


def get_version(session: Session, args: Args, out: Output) -> Result:
    found = session.client.version()
    return fields(field("API SERVER VERSION", found.get("version", "")))


def list_env(session: Session, args: Args, out: Output) -> Result:
    settings = _environment(session.context(args.get("context")))
    return Result(settings.data, settings.lines)


def get_env(session: Session, args: Args, out: Output) -> Result:
    context = session.context(args.get("context"))
    name = args["variable"]
    if name not in context.env:
        raise CommandError(ABSENT, f"context {context.name} has no variable {name}")
    return _setting(name, context.env[name])


def set_env(session: Session, args: Args, out: Output) -> Result:
    context = session.context(args.get("context"))
    name, value = args["variable"], args["value"]
    context.env[name] = value
    return _setting(name, value)


def _setting(name: str, value: str) -> Result:
    return Result({name: value}, (f"{name}={value}",))


def wait_for_ip(session: Session, args: Args, out: Output) -> Result:
    port = port_of(args.get("port", str(API_PORT)))
    return _wait(session, out, args["host"], port, args)


def wait_for_service(session: Session, args: Args, out: Output) -> Result:
    host, port = service_address(args["service"])
    return _wait(session, out, host, port, args)


def _wait(session: Session, out: Output, host: str, port: int, args: Args) -> Result:
    """Ask each 5 s; a mark for each time, and a line whenever the reason is another one."""
    retries = int(args.get("retries", str(RETRIES))[:9])
    shown = ""

    def waiting(reason: str) -> None:
        nonlocal shown
        if reason != shown:
            out.line(f"API Server is DOWN! waiting: {reason}")
            shown = reason
        else:
            out.mark()

    client: Client = session.connect(host, port)
    try:
        up = client.wait_up(timeout=retries * RETRY_SECONDS, on_wait=waiting, every=RETRY_SECONDS)
    finally:
        client.close()
    if not up:
        raise CommandError(DOWN, f"API Server is DOWN! {shown or f'{host}:{port} does not answer'}")
    return said(UP, host=host, port=port)


def port_of(text: str) -> int:
    """A TCP port. Raises CommandError."""
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < port < 65536:
        raise CommandError(WRONG_ARGUMENT, f"{text} is no port number")
    return port


def service_address(text: str) -> tuple[str, int]:
    """Host and port of `fqdn[:port]`. Raises CommandError."""
    try:
        return address.service_address(text)
    except ValueError as error:
        raise CommandError(WRONG_ARGUMENT, str(error)) from None


COMMANDS = (
    Command(
        "CREATE CONTEXT <context> WITH IP <host> [<port:int>]",
        "Make a context for the network node at this address (API port 30304 if none is given).\n"
        "The node must answer. Use SWITCH CONTEXT to work with it.",
        create_with_ip,
        "{context}",
    ),
    Command(
        "CREATE CONTEXT <context> WITH SERVICE <service>",
        "The same for a node behind a reverse proxy; <service> is <fqdn>[:<port>], port 443 if\n"
        "none is given. The proxy must pass TLS through.",
        create_with_service,
        "{context}",
    ),
    Command(
        "SWITCH CONTEXT <context>",
        "Let all further commands act on this context.",
        switch,
        "{context}",
    ),
    Command("LIST CONTEXTS", "Names of the contexts of this session.", list_contexts, "[name]"),
    Command(
        "GET CONTEXT INFO [<context>]",
        "Address, version and settings of a context (of the active one, if none is given).",
        get_info,
        "{context_name, api_server_ip?, api_service?, api_server_port, version, env: {<variable>}}",
    ),
    Command(
        "GET CONTEXT VERSION",
        "Version of the network node's API server.",
        get_version,
        "{api_server_version}",
    ),
    Command("LIST CONTEXT ENV [<context>]", "All settings of a context.", list_env, "{<variable>}"),
    Command(
        "GET CONTEXT ENV [<context>] <variable>",
        "One setting of a context.",
        get_env,
        "{<variable>}",
    ),
    Command(
        "SET CONTEXT ENV [<context>] <variable> <value>",
        "Change a setting of a context. SWCI_RUN_TASK_MAX_WAIT_TIME and\n"
        "SWCI_GENERIC_TASK_MAX_WAIT_TIME (minutes) limit WAIT FOR TASKRUNNER.",
        set_env,
        "{<variable>}",
    ),
    Command(
        "WAIT FOR IP <host> [<port:int>] [<retries:int>]",
        "Wait until the network node answers: at most 360 times 5 seconds, if no number of\n"
        "retries is given.",
        wait_for_ip,
        "{host, port}",
        waits=True,
    ),
    Command(
        "WAIT FOR SERVICE <service> [<retries:int>]",
        "The same for a node behind a reverse proxy; <service> is <fqdn>[:<port>].",
        wait_for_service,
        "{host, port}",
        waits=True,
    ),
)
