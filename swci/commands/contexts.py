"""Commands about contexts: which network node is talked to, with which settings."""

from __future__ import annotations

from collections.abc import Mapping

from swarm import address
from swci.command import Command, CommandError
from swci.display import field
from swci.output import Output
from swci.ports import Client
from swci.session import Context, Session

API_PORT = 30304
RETRY_SECONDS = 5.0
RETRIES = 360

Args = Mapping[str, str]


def create_with_ip(session: Session, args: Args, out: Output) -> None:
    port = port_of(args.get("port", str(API_PORT)))
    _create(session, out, args["context"], args["host"], port, service=False)


def create_with_service(session: Session, args: Args, out: Output) -> None:
    host, port = service_address(args["service"])
    _create(session, out, args["context"], host, port, service=True)


def _create(
    session: Session, out: Output, name: str, host: str, port: int, *, service: bool
) -> None:
    if name in session.contexts:
        raise CommandError(f"a context {name} exists already")
    client = session.connect(host, port)
    try:
        reasons: list[str] = []
        if not client.wait_up(timeout=0, on_wait=reasons.append):
            why = reasons[-1] if reasons else f"{host}:{port} does not answer"
            raise CommandError(f"API Server is DOWN! {why}")
        out.line("API Server is UP!")
        version = str(client.version().get("version", ""))
    except BaseException:
        client.close()
        raise
    session.contexts[name] = Context(
        name, host, port, service, client, session.default_env(), version
    )
    out.line(f"CONTEXT CREATED : {name}")


def switch(session: Session, args: Args, out: Output) -> None:
    session.active = session.context(args["context"])
    out.line(f"DEFAULT CONTEXT SET TO : {session.active.name}")


def list_contexts(session: Session, args: Args, out: Output) -> None:
    for name in session.contexts:
        out.line(name)


def get_info(session: Session, args: Args, out: Output) -> None:
    context = session.context(args.get("context"))
    out.line(field("CONTEXT NAME", context.name))
    out.line(field("API SERVICE" if context.service else "API SERVER IP", context.host))
    out.line(field("API SERVER PORT", context.port))
    out.line(field("VERSION", context.version))
    for name, value in sorted(context.env.items()):
        out.line(field("ENV", f"{name}={value}"))


def get_version(session: Session, args: Args, out: Output) -> None:
    found = session.client.version()
    out.line(field("API SERVER VERSION", found.get("version", "")))


def list_env(session: Session, args: Args, out: Output) -> None:
    for name, value in sorted(session.context(args.get("context")).env.items()):
        out.line(f"{name}={value}")


def get_env(session: Session, args: Args, out: Output) -> None:
    context = session.context(args.get("context"))
    if args["variable"] not in context.env:
        raise CommandError(f"context {context.name} has no variable {args['variable']}")
    out.line(f"{args['variable']}={context.env[args['variable']]}")


def set_env(session: Session, args: Args, out: Output) -> None:
    context = session.context(args.get("context"))
    context.env[args["variable"]] = args["value"]
    out.line(f"{args['variable']}={args['value']}")


def wait_for_ip(session: Session, args: Args, out: Output) -> None:
    port = port_of(args.get("port", str(API_PORT)))
    _wait(session, out, args["host"], port, int(args.get("retries", RETRIES)))


def wait_for_service(session: Session, args: Args, out: Output) -> None:
    host, port = service_address(args["service"])
    _wait(session, out, host, port, int(args.get("retries", RETRIES)))


def _wait(session: Session, out: Output, host: str, port: int, retries: int) -> None:
    """Ask each 5 s; a mark for each time, and a line whenever the reason is another one."""
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
        raise CommandError(f"API Server is DOWN! {shown or f'{host}:{port} does not answer'}")
    out.line("API Server is UP!")


def port_of(text: str) -> int:
    """A TCP port. Raises CommandError."""
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < port < 65536:
        raise CommandError(f"{text} is no port number")
    return port


def service_address(text: str) -> tuple[str, int]:
    """Host and port of `fqdn[:port]`. Raises CommandError."""
    try:
        return address.service_address(text)
    except ValueError as error:
        raise CommandError(str(error)) from None


COMMANDS = (
    Command(
        "CREATE CONTEXT <context> WITH IP <host> [<port:int>]",
        "Make a context for the network node at this address (API port 30304 if none is given).\n"
        "The node must answer. Use SWITCH CONTEXT to work with it.",
        create_with_ip,
    ),
    Command(
        "CREATE CONTEXT <context> WITH SERVICE <service>",
        "The same for a node behind a reverse proxy; <service> is <fqdn>[:<port>], port 443 if\n"
        "none is given. The proxy must pass TLS through.",
        create_with_service,
    ),
    Command("SWITCH CONTEXT <context>", "Let all further commands act on this context.", switch),
    Command("LIST CONTEXTS", "Names of the contexts of this session.", list_contexts),
    Command(
        "GET CONTEXT INFO [<context>]",
        "Address, version and settings of a context (of the active one, if none is given).",
        get_info,
    ),
    Command("GET CONTEXT VERSION", "Version of the network node's API server.", get_version),
    Command("LIST CONTEXT ENV [<context>]", "All settings of a context.", list_env),
    Command("GET CONTEXT ENV [<context>] <variable>", "One setting of a context.", get_env),
    Command(
        "SET CONTEXT ENV [<context>] <variable> <value>",
        "Change a setting of a context. SWCI_RUN_TASK_MAX_WAIT_TIME and\n"
        "SWCI_GENERIC_TASK_MAX_WAIT_TIME (minutes) limit WAIT FOR TASKRUNNER.",
        set_env,
    ),
    Command(
        "WAIT FOR IP <host> [<port:int>] [<retries:int>]",
        "Wait until the network node answers: at most 360 times 5 seconds, if no number of\n"
        "retries is given.",
        wait_for_ip,
        waits=True,
    ),
    Command(
        "WAIT FOR SERVICE <service> [<retries:int>]",
        "The same for a node behind a reverse proxy; <service> is <fqdn>[:<port>].",
        wait_for_service,
        waits=True,
    ),
)
