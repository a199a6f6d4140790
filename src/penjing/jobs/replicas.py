"""A service in several replicas on a Ray cluster: as many as its load wants.

Ray Serve takes requests in, gives each to the replica that has fewer under way of two that it looks at, and
starts and ends replicas; what a replica is stands in `jobs/replica.py`.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import threading
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from penjing.errors import NotSupported, SpecError, WontFit
from penjing.jobs.crew import ray_of
from penjing.jobs.replica import NAME, Replica, replica
from penjing.jobs.serve import Serving, Tell, refuse_certificate, register
from penjing.serve.limits import Limits
from penjing.serve.shared import Ledger

MOST = 4096  # requests in one replica; its own queue refuses long before
LOGGED = {"enable_access_log": False, "log_level": "WARNING"}
COUNT_S = 1.0  # how often replicas say how much they have to do


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How many replicas there are.

    replicas: fewest and most, `1..4`, or how many there always are, `2`. target: requests under way that one
    replica should have. up, down: seconds that more, or fewer, must be wanted before replicas come or go.
    cores: processor cores of each, by Ray's count.
    """

    replicas: str = "1..4"
    target: float = 16.0
    up: float = 5.0
    down: float = 60.0
    cores: float = 1.0

    def __post_init__(self) -> None:
        fewest, most = self.range
        if not 1 <= fewest <= most:
            raise SpecError(
                f"`--replicas` takes the fewest and the most, from 1, such as 1..4; it is `{self.replicas}`. "
                "Leave it out for 1..4."
            )
        for name in ("target", "cores"):
            if not getattr(self, name) > 0:
                raise SpecError(f"`--{name}` must be above 0; it is {getattr(self, name)}. Leave it out.")
        for name in ("up", "down"):
            if not getattr(self, name) >= 0:
                raise SpecError(
                    f"`--{name}` is seconds, 0 or more; it is {getattr(self, name)}. Leave it out."
                )

    @property
    def range(self) -> tuple[int, int]:
        """Fewest and most; (0, 0) where that cannot be read."""
        found = re.fullmatch(r"(\d{1,5})(?:\.\.(\d{1,5}))?", self.replicas)
        return (int(found[1]), int(found[2] or found[1])) if found else (0, 0)


def serve_on(
    bundles: Sequence[str], how: Serving, scaling: Scaling, *, on: str, tell: Tell = lambda text: None
) -> None:
    """Serve on a cluster (`ray://host:10001`, or `ray` for this machine) until SIGTERM or Ctrl-C; what was
    taken is finished first. Registry, keys and certificates must be the same files on every machine.

    Raises:
        SpecError, NotSupported: as `jobs.serve.serve`; no cluster there, or no replica could start.
        WontFit: the machine has fewer cores than the fewest replicas take.
    """
    if how.store is not None and on != "ray" and "://" not in how.store:
        raise SpecError(
            f"Traffic was to be kept in {how.store}, a file of one machine; the replicas on {on} may stand "
            "on several. Give a database that all of them reach (`--traffic postgresql://…`)."
        )
    refuse_certificate(how)
    how = _anchored(how)
    names = register(bundles, how, tell=tell)
    ray = ray_of(on)
    with ExitStack() as after:
        after.callback(ray.shutdown)
        _room(ray, scaling, local=on == "ray", tell=tell)
        serving = _started(how)
        ledger = _ledger(ray, how)
        after.callback(_ended, ray, serving, local=on == "ray")
        _deploy(serving, names, how, scaling, ledger=ledger)
        _forget(ray, but=ledger)
        scheme = "https" if how.certificate else "http"
        where = "" if on == "ray" else f" of each machine of {on} that has a replica"
        keys = "" if how.keys else ", without keys"
        tell(f"{', '.join(names)} on {scheme}://{how.host}:{how.port}{where}{keys}")
        _watch(serving, _asked_to_end(after), tell)
        tell("stopping: what was taken is finished first")


def _deploy(serving: Any, names: Sequence[str], how: Serving, scaling: Scaling, *, ledger: str) -> None:
    """Let the replicas start; returns when the fewest of them answer."""

    def built() -> Any:  # in each replica
        return replica(names, how, ledger=ledger)

    deployment = serving.deployment(
        serving.ingress(built)(Replica),
        name="replica",
        autoscaling_config=_autoscaling(serving, scaling),
        ray_actor_options={"num_cpus": scaling.cores, "num_gpus": int(how.device.startswith("cuda"))},
        max_ongoing_requests=MOST,
        max_queued_requests=MOST,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=how.stop + 5,
        health_check_period_s=5,
        max_constructor_retry_count=3,
        logging_config=LOGGED,
    )
    try:
        serving.run(deployment.bind(), name=NAME, route_prefix="/")
    except RuntimeError as error:
        status = serving.status().applications.get(NAME)
        told = " ".join(one.message for one in status.deployments.values()) if status else str(error)
        why = re.findall(r"penjing\.\S+: (.+)", told) or [told.strip()[-300:]]
        raise NotSupported(
            f"The replicas of {', '.join(names)} were to start on the cluster; they did not: {why[-1]} Mend "
            "that; the logs of Ray Serve (`ray logs`) have more."
        ) from error


def _autoscaling(serving: Any, scaling: Scaling) -> Any:
    fewest, most = scaling.range
    with warnings.catch_warnings():
        # Ray means to replace it by a variable of the cluster's environment, which is not ours to set.
        warnings.filterwarnings("ignore", message=".*metrics_interval_s", category=DeprecationWarning)
        return serving.config.AutoscalingConfig(
            min_replicas=fewest,
            max_replicas=most,
            target_ongoing_requests=scaling.target,
            upscale_delay_s=scaling.up,
            downscale_delay_s=scaling.down,
            look_back_period_s=min(30.0, max(3 * COUNT_S, scaling.up)),
            metrics_interval_s=COUNT_S,
        )


def _ledger(ray: Any, how: Serving) -> str:
    """Make the actor that keeps what all replicas asked, and give its name. It outlives this process where
    that is killed; where it is lost itself, Ray makes it anew, with nothing asked yet."""
    name = f"ledger-{secrets.token_hex(4)}"
    kept = ray.remote(Ledger).options(
        name=name, namespace=NAME, lifetime="detached", num_cpus=0, max_restarts=-1, max_task_retries=3
    )
    ray.get(kept.remote(Limits(requests=how.requests, tokens=how.rate)).told.remote(""))
    return name


def _forget(ray: Any, *, but: str = "") -> None:
    """End the ledgers of services that are gone."""
    for one in ray.util.list_named_actors(all_namespaces=True):
        if one["namespace"] == NAME and one["name"] != but:
            ray.kill(ray.get_actor(one["name"], namespace=NAME))


def _started(how: Serving) -> Any:
    """Ray Serve, listening where it was asked to.

    Raises:
        SpecError: it runs on this cluster already, and listens elsewhere.
    """
    try:
        from ray import serve
        from ray.serve.context import _get_global_client
    except ImportError as error:
        raise NotSupported(
            f"Replicas need Ray Serve; {error.name} is not installed. `pip install 'penjing[cluster,serve]'`."
        ) from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    wanted = {"host": how.host, "port": how.port}
    if how.certificate is not None:
        wanted |= {"ssl_certfile": str(how.certificate), "ssl_keyfile": str(how.private_key)}
    options = wanted | {"request_timeout_s": how.within + 30, "keep_alive_timeout_s": 30}
    serve.start(http_options=options, logging_config=LOGGED)
    client: Any = _get_global_client()
    found = client.http_config
    other = {key: getattr(found, key) for key in wanted if str(getattr(found, key)) != str(wanted[key])}
    if other:
        told = ", ".join(f"{key} {value}" for key, value in other.items())
        raise SpecError(
            f"Ray Serve was to listen on {how.host}:{how.port}; it runs on this cluster already, with "
            f"{told}, and keeps that while it runs. Ask for the same, or end it first (`serve shutdown`)."
        )
    return serve


def _ended(ray: Any, serving: Any, *, local: bool) -> None:
    """End the application; Ray Serve, too, where nothing else runs on it (`local`: it ends by itself)."""
    if NAME in serving.status().applications:
        serving.delete(NAME)
    _forget(ray)
    if not local and not serving.status().applications:
        serving.shutdown()


def _watch(serving: Any, stop: threading.Event, tell: Tell) -> None:
    """Say how many replicas answer whenever that changes, until the end is asked for."""
    before = ""
    while True:
        found = serving.status().applications.get(NAME)
        states = found.deployments["replica"].replica_states if found and found.deployments else {}
        counts = {str(getattr(state, "value", state)).lower(): n for state, n in states.items() if n}
        now = ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none"
        if now != before:
            tell(f"replicas: {now}")
        before = now
        if stop.wait(COUNT_S):
            return


def _asked_to_end(after: ExitStack) -> threading.Event:
    """Set by SIGTERM and Ctrl-C, for which Ray has its own ways."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        after.callback(signal.signal, number, signal.signal(number, lambda *about: stop.set()))
    return stop


def _room(ray: Any, scaling: Scaling, *, local: bool, tell: Tell) -> None:
    fewest, most = scaling.range
    have = float(ray.cluster_resources().get("CPU", 0))
    if local and fewest * scaling.cores > have:
        raise WontFit(
            f"{fewest} replicas of {scaling.cores:g} cores were wanted; this machine has {have:g}. Give "
            f"fewer, or `--cores {have / fewest:.2g}`."
        )
    if most * scaling.cores > have:
        tell(f"the cluster has {have:g} cores now: {int(have // scaling.cores)} of {most} replicas fit")


def _anchored(how: Serving) -> Serving:
    """With whole paths: replicas work in another folder."""
    files = ("registry", "keys", "audit", "certificate", "private_key")
    whole: dict[str, Any] = {key: path.absolute() for key in files if (path := getattr(how, key)) is not None}
    if how.store is not None and "://" not in how.store:
        whole["store"] = os.path.abspath(how.store)
    return replace(how, **whole)
