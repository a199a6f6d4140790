"""The verbs `serve` and `keys`, and those that turn a served model to another version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penjing.cli_options import AsJson, given_of
from penjing.screen import Screen, print_json, print_table

REGISTRY = Path("serving")
KeyFile = Annotated[Path, typer.Option("--keys", help="file of API keys")]
Number = Annotated[str, typer.Argument(help="a key's id, such as k7f3a91c2")]

keys = typer.Typer(
    name="keys", help="API keys of a service: add, list, revoke, rotate.", no_args_is_help=True
)


def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(help="runs or bundles, or NAME=FOLDER; all models of the registry when not given"),
    ] = None,
    registry: Annotated[
        Path | None, typer.Option("--registry", help="versions of models; serving/ if none")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="beyond 127.0.0.1 only with --keys")] = None,
    port: Annotated[int | None, typer.Option("--port", help="8000 if not given")] = None,
    keys: Annotated[Path | None, typer.Option("--keys", help="file of API keys (penjing keys add)")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="computed in one pass; 2048")] = None,
    waiting: Annotated[int | None, typer.Option("--waiting", help="tokens that may wait; 262144")] = None,
    hot: Annotated[int | None, typer.Option("--hot", help="bundles kept in memory; 64")] = None,
    within: Annotated[float | None, typer.Option("--within", help="seconds a request may take; 30")] = None,
    requests: Annotated[float | None, typer.Option("--requests", help="a minute, for each key")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="tokens a minute, for each key")] = None,
    body: Annotated[float | None, typer.Option("--body", help="MiB of a request at most; 2")] = None,
    stop: Annotated[float | None, typer.Option("--stop", help="seconds to finish what was taken; 30")] = None,
    store: Annotated[
        str | None, typer.Option("--traffic", help="keep requests, masked: traffic.db or postgresql://…")
    ] = None,
    audit: Annotated[Path | None, typer.Option("--audit", help="file of the audit log")] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="TLS: PEM file")] = None,
    private_key: Annotated[Path | None, typer.Option("--private-key", help="TLS: PEM file")] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="ray://HOST:PORT of a Ray cluster; ray for one on this machine")
    ] = None,
    replicas: Annotated[
        str | None, typer.Option("--replicas", help="fewest and most, with --on; 1..4")
    ] = None,
    target: Annotated[
        float | None, typer.Option("--target", help="requests under way for one replica, with --on; 16")
    ] = None,
    up: Annotated[
        float | None, typer.Option("--up", help="seconds of load before replicas come, with --on; 5")
    ] = None,
    down: Annotated[
        float | None, typer.Option("--down", help="seconds of quiet before replicas go, with --on; 60")
    ] = None,
    cores: Annotated[float | None, typer.Option("--cores", help="of each replica, with --on; 1")] = None,
) -> None:
    """Answer over HTTP: many bundles on their shared bases, by name and version."""
    given = given_of(
        registry=registry, host=host, port=port, keys=keys, device=device, tokens=tokens, waiting=waiting
    )
    given |= given_of(hot=hot, within=within, requests=requests, rate=rate, body=body, stop=stop, store=store)
    given |= given_of(audit=audit, certificate=certificate, private_key=private_key)
    scaling = given_of(replicas=replicas, target=target, up=up, down=down, cores=cores)
    with Screen():
        from penjing.errors import SpecError
        from penjing.jobs.serve import Serving
        from penjing.jobs.serve import serve as job

        if scaling and on is None:
            raise SpecError(
                f"`--{next(iter(scaling))}` is of replicas on a cluster; `--on` names none. Add `--on ray` "
                "(this machine) or `--on ray://HOST:10001`, or leave it out."
            )
        how = Serving(**given)
        tell = lambda text: typer.echo(f"▸ {text}", err=True)  # noqa: E731
        if on is None:
            job(bundles or [], how, tell=tell)
        else:
            from penjing.jobs.replicas import Scaling, serve_on

            serve_on(bundles or [], how, Scaling(**scaling), on=on, tell=tell)


def promote(
    model: Annotated[str, typer.Argument(help="a model and its version, such as support@3")],
    registry: Annotated[Path, typer.Option("--registry", help="versions of models")] = REGISTRY,
    alias: Annotated[str, typer.Option("--alias", help="what is to point at it")] = "live",
    canary: Annotated[
        float | None, typer.Option("--canary", help="share of the live traffic that it gets; 0 ends it")
    ] = None,
    shadow: Annotated[
        float | None, typer.Option("--shadow", help="share that it sees beside the live version; 0 ends it")
    ] = None,
) -> None:
    """Let a version answer: all of the live traffic, or a share. A service follows within a second."""
    with Screen(quiet=True):
        from penjing.serve import registry as own

        registry, model = _by_folder(registry, model)
        own.refuse_unknown(registry, model.partition("@")[0])
        version, _ = own.find(registry, model)
        if canary is None and shadow is None:
            route = own.point(registry, version.name, version.number, alias=alias)
        for kind, share in (("canary", canary), ("shadow", shadow)):
            if share is not None:
                route = own.share(registry, version.name, kind, version.number if share else None, share)
        typer.echo(_said(version.name, route))


def roll_back(
    model: Annotated[str, typer.Argument(help="a model, such as support")],
    registry: Annotated[Path, typer.Option("--registry", help="versions of models")] = REGISTRY,
) -> None:
    """Return to the version that was live before. A service follows within a second."""
    with Screen(quiet=True):
        from penjing.serve import registry as own

        registry, model = _by_folder(registry, model)
        own.refuse_unknown(registry, model)
        typer.echo(_said(model, own.roll_back(registry, model)))


def _by_folder(registry: Path, model: str) -> tuple[Path, str]:
    """Registry and name of a model; it may be given by its folder, as `watch` and `update` take it."""
    folder = Path(model)
    named = folder.parent != Path() and registry in (folder.parent, REGISTRY)
    return (folder.parent, folder.name) if named else (registry, model)


def _said(name: str, route: Any) -> str:
    shares = [(kind, getattr(route, kind)) for kind in ("canary", "shadow")]
    parts = [f"{kind} {own.version} {own.share:g}" for kind, own in shares if own is not None]
    others = [f"{alias} {number}" for alias, number in route.aliases.items() if alias != "live"]
    return f"{name}: {', '.join([f'live {route.live}', *others, *parts])}"


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="whose it is, such as ci")],
    file: KeyFile = Path("keys.json"),
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="infer (the default), infer:MODEL, feedback, metrics, admin"),
    ] = None,
    days: Annotated[float | None, typer.Option("--days", help="until it ends; never when not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once; the file keeps its hash."""
    with Screen(quiet=True, as_json=as_json):
        from penjing.serve.keyring import make

        key, entry = make(file, name=name, scopes=scope or ["infer"], days=days)
    if as_json:
        print_json({"key": key, **entry})
    else:
        typer.echo(key)


@keys.command("list")
def list_keys(file: KeyFile = Path("keys.json"), as_json: AsJson = False) -> None:
    """The keys of a file, without the keys."""
    with Screen(quiet=True, as_json=as_json):
        from penjing.serve.keyring import read

        entries = read(file)
    if as_json:
        print_json(entries)
        return
    rows = [
        [e["id"], e["name"], ", ".join(e["scopes"]), _day(e["made"]), _day(e["expires"])] for e in entries
    ]
    print_table(["id", "name", "scopes", "made", "ends"], rows)


@keys.command("revoke")
def revoke(number: Number, file: KeyFile = Path("keys.json")) -> None:
    """Take a key back at once."""
    with Screen(quiet=True):
        from penjing.serve.keyring import revoke as take

        typer.echo(f"{take(file, number)['name']}: {number} is no key any more")


@keys.command("rotate")
def rotate(
    number: Number,
    file: KeyFile = Path("keys.json"),
    hours: Annotated[float, typer.Option("--overlap-hours", help="that the old one still holds")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Make a key in place of another, which ends after the overlap."""
    with Screen(quiet=True, as_json=as_json):
        from penjing.serve.keyring import rotate as turn

        key, entry = turn(file, number, overlap_hours=hours)
    if as_json:
        print_json({"key": key, **entry})
    else:
        typer.echo(key)


def _day(at: float | None) -> str:
    import time

    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
