"""Bundles behind one HTTP service."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.errors import NotSupported, SpecError
from penjing.serve import registry
from penjing.serve.asked import Closing
from penjing.serve.databases import shown
from penjing.serve.keyring import Keyring, is_local, read
from penjing.serve.limits import Limits
from penjing.serve.shared import Shared, alone
from penjing.serve.traffic import Traffic, recorder

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a service runs.

    registry: folder of the models' versions. host, port: where it listens; beyond this machine only with
    keys. keys: file of API keys. tokens: computed in one pass. waiting: tokens that may wait. hot: bundles
    kept open. within: seconds that a request may take. requests, rate: requests and tokens a minute for
    each key. body: largest request, MiB. stop: seconds in which a stop finishes what was taken. store:
    traffic to keep. audit: file of the audit log. certificate, private_key: files for TLS.
    """

    registry: Path = Path("serving")
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    keys: Path | None = None
    tokens: int = 2048
    waiting: int = 262_144
    hot: int = 64
    within: float = 30.0
    requests: float | None = None
    rate: float | None = None
    body: float = 2.0
    stop: float = 30.0
    store: str | None = None
    audit: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tokens", "waiting", "hot", "within", "body", "stop"):
            if not getattr(self, name) > 0:
                raise SpecError(
                    f"`{name}` must be above 0; it is {getattr(self, name)}. Leave it out for the usual."
                )
        for name in ("requests", "rate"):
            most = getattr(self, name)
            if most is not None and not most >= 1:
                raise SpecError(
                    f"`{name}` must be 1 a minute or more; it is {most}. Leave it out for no limit, or "
                    "revoke the keys that may ask nothing."
                )
        if not 0 <= self.port < 65536:
            raise SpecError(
                f"`port` must be 0 to 65535; it is {self.port}. 8000 is usual, 0 takes a free one."
            )
        if (self.certificate is None) != (self.private_key is None):
            raise SpecError("TLS needs a certificate and its private key; one of them is missing. Give both.")
        if self.keys is None and not is_local(self.host):
            raise SpecError(
                f"The service was to listen on {self.host}, which others can reach, without API keys. Make "
                "some "
                "(`penjing keys add --keys keys.json`) and give `--keys keys.json`, or listen on 127.0.0.1."
            )


def register(bundles: Sequence[str], how: Serving, *, tell: Tell = lambda text: None) -> list[str]:
    """Take bundles (`runs/a`, or `NAME=runs/a`) into the registry; the models' names. What is new becomes
    live.

    Raises:
        SpecError: two of one name, or nothing to serve. NotSupported: a bundle that cannot be served.
    """
    from penjing.serve.opened import Bases, prove

    bases, names = Bases(), list[str]()
    for given in bundles:
        name, sign, folder = given.partition("=")  # a model's name has none; a folder may
        if not sign or Path(given).is_dir():
            name, folder = "", given
        name = name or Path(folder).resolve().name
        if name == "best":
            name = Path(folder).resolve().parent.name
        if name in names:
            raise SpecError(f"Two bundles would be called `{name}`. Give one another name: `other={folder}`.")
        version = registry.add(
            how.registry,
            name,
            Path(folder),
            prove=lambda place: prove(place, bases=bases, device=how.device, trust=how.trust),
            live=True,
        )
        tell(f"{version} {version.sha256[:12]}… from {folder}")
        now = registry.read_route(how.registry, name).live
        if now != version.number:
            tell(f"{name}@{now} is live since; `penjing promote {version}` lets this one answer again")
        names.append(name)
    names = names or registry.names(how.registry)
    if not names:
        raise SpecError(
            f"Models to serve were wanted; none are given, and the registry {how.registry} has none. Give "
            "runs or "
            "bundles: `penjing serve runs/a runs/b`."
        )
    return names


def application(
    names: Sequence[str], how: Serving, *, traffic: Traffic | None = None, shared: Shared | None = None
) -> Any:
    """The ASGI application of registered models. `traffic` is where requests and feedback are kept, `shared`
    what this replica has in common with others.

    Raises:
        NotSupported: the packages of `penjing[serve]` are missing.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise NotSupported(
            f"Serving needs fastapi, prometheus_client and uvicorn; {error.name} is not installed. `pip "
            "install "
            "'penjing[serve]'`."
        ) from error
    from penjing.serve.app import create
    from penjing.serve.audit import Audit
    from penjing.serve.batcher import Batcher
    from penjing.serve.models import Models
    from penjing.serve.service import Service

    audit = Audit(how.audit)
    counters: list[Any] = []

    def note(event: str, about: dict[str, Any]) -> None:
        audit.note(event, about)
        for service in counters:
            service.metrics.events.labels(event).inc()

    models = Models(how.registry, hot=how.hot, device=how.device, trust=how.trust, note=note)
    batcher = Batcher(models.lanes, tokens=how.tokens, most=how.waiting)
    shared = shared or alone(Limits(requests=how.requests, tokens=how.rate))
    records = None if traffic is None else recorder(traffic)
    service = Service(models, batcher, recorder=records, shared=shared, audit=audit, within_s=how.within)
    counters.append(service)
    keyring = None if how.keys is None else Keyring(how.keys)
    more = []
    if traffic is not None:
        from penjing.serve.feedback import router

        more.append(router(traffic))
    limit = int(how.body * 2**20)
    return create(service, keyring=keyring, names=names, routers=more, body=limit, stop_s=how.stop)


def open_all(app: Any, names: Sequence[str]) -> None:
    """Open the live versions of these models, before the application takes its first request.

    Raises:
        NotSupported: one is refused.
    """
    for name in names:
        try:
            app.state.service.models.begin(name)
        except Closing as error:
            raise error.__cause__ or error from None


def serve(bundles: Sequence[str], how: Serving, *, tell: Tell = lambda text: None) -> None:
    """Serve until SIGTERM or Ctrl-C; what was taken is finished first.

    Raises:
        SpecError, NotSupported: as `register` and `application`, or a model is refused.
    """
    with contextlib.ExitStack() as after:
        refuse_certificate(how)
        sockets = [after.enter_context(one) for one in bound(how.host, how.port)]
        traffic = None
        if how.store is not None:
            traffic = after.enter_context(Traffic(how.store))
            tell(f"requests are kept in {shown(how.store)}, personal data masked")
        app = application((), how, traffic=traffic)  # what fails does so before a version is live
        if how.keys is not None and not read(how.keys):
            more = f"`penjing keys add NAME --keys {how.keys}`"
            tell(f"{how.keys} holds no key yet: nobody is let in before {more}")
        names = register(bundles, how, tell=tell)
        open_all(app, names)
        import uvicorn

        scheme = "https" if how.certificate else "http"
        host, port = f"[{how.host}]" if ":" in how.host else how.host, sockets[0].getsockname()[1]
        tell(f"{', '.join(names)} on {scheme}://{host}:{port}{'' if how.keys else ', without keys'}")
        # uvicorn stops gracefully and then raises the signal again: that end is a good one.
        after.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *about: None))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(how.stop) + 5,
            limit_concurrency=4096,
            ssl_certfile=how.certificate,
            ssl_keyfile=how.private_key,
        )
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=sockets)


def refuse_certificate(how: Serving) -> None:
    """Raises SpecError where TLS is asked for and its files are not there, or not of one another."""
    if how.certificate is None:
        return
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(how.certificate, how.private_key)
    except (OSError, ssl.SSLError) as error:
        said = error.strerror or str(error)
        raise SpecError(
            f"TLS was to be spoken with {how.certificate} and {how.private_key}; they cannot be taken: "
            f"{said}. Give a PEM file of the certificate and one of its own key, without a password."
        ) from error


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets of every address that a host's name has, one port for all. They are taken first: who cannot
    have them need not wait for models to open.

    Raises:
        SpecError: another program listens there, or it is no address of this machine.
    """
    found: list[socket.socket] = []
    why: OSError | None = None
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(places):
            try:
                own = found[0].getsockname()[1] if found else port
                found.append(_bound(family, (address[0], own, *address[2:])))
            except OSError as error:
                why = error
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # such as IPv6, switched off
                    raise
        if not found and why is not None:
            raise why
    except OSError as error:
        for one in found:
            one.close()
        raise SpecError(
            f"The service was to listen on {host}, port {port}; the system said: {error.strerror}. Give "
            "another `--port` (0 takes a free one) or `--host`, or end what listens there."
        ) from error
    return found


def _bound(family: int, address: Any) -> socket.socket:
    own = socket.socket(family, socket.SOCK_STREAM)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits for old connections
        if family == socket.AF_INET6:  # IPv4 has a socket of its own
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        own.bind(address)
    except OSError:
        own.close()
        raise
    return own
