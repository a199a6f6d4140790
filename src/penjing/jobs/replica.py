"""One of several replicas of a service: the whole application of `jobs/serve.py` in a process of a Ray
cluster.

It reads the registry, keys and pointers itself, batches its own requests and refuses what a service refuses.
What it has in common with the others lies in an actor that all of them ask (`serve/shared.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penjing.jobs.serve import Serving, application, open_all
from penjing.serve.asked import Busy, Closing
from penjing.serve.shared import Shared
from penjing.serve.traffic import Traffic

NAME = "penjing"  # of the application and of the namespace of its actors


def replica(names: Sequence[str], how: Serving, *, ledger: str) -> Any:
    """The application of one replica, its models open. `ledger` names the actor that all replicas ask.

    Raises:
        NotSupported: a model is refused.
    """
    import ray
    from ray import serve

    name = serve.get_replica_context().replica_tag
    common = _shared(name, ray.get_actor(ledger, namespace=NAME), how)
    traffic = None if how.store is None else Traffic(how.store)
    app = application(names, how, traffic=traffic, shared=common)
    open_all(app, names)
    return app


def _shared(name: str, ledger: Any, how: Serving) -> Shared:
    limited = {"requests": how.requests is not None, "tokens": how.rate is not None}

    async def asked(call: Any, *given: Any) -> Any:
        try:
            return await call.remote(*given)
        except Exception as error:  # of Ray: the actor is lost, and made anew by Ray
            raise Closing(
                "What callers have asked cannot be counted just now, so nothing is taken. Ask again."
            ) from error

    async def take(caller: str, kind: str, amount: float) -> None:
        if limited[kind]:
            refused = await asked(ledger.take, caller, kind, amount)
            if refused is not None:
                raise Busy(*refused)

    async def tell(families: Sequence[Any]) -> None:
        await asked(ledger.tell, name, families)

    async def told() -> list[Sequence[Any]]:
        found: list[Sequence[Any]] = await asked(ledger.told, name)
        return found

    return Shared(name, take, tell, told)


class Replica:
    """What Ray Serve knows of a replica, beside its application, which it sets as `app`."""

    app: Any

    def check_health(self) -> None:
        """Raises where its worker has died; Ray then puts another replica in its place."""
        if not self.app.state.service.batcher.alive:
            raise RuntimeError("the worker of this replica has ended")
