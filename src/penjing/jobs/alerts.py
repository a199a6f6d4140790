"""Tell people and programs that a model's world moved: a log, a webhook, an e-mail, a file for Prometheus.

A target is a URL: `log:alerts.jsonl`, `https://hooks.example.com/x`, `smtp://host:587?to=a@b&from=c@d`
(`smtps://` from the first byte under TLS; with a user in the URL STARTTLS is asked for before the password is
said). Passwords may stand in PENJING_SMTP_PASSWORD in place of the URL.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import time
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from penjing.errors import NotSupported, SpecError, nearest
from penjing.files import told, write_text
from penjing.jobs.watch import Watched

WAIT_S = 10.0
TRIES = 3
PAUSE_S = 1.0  # before the second try; twice as long before the third


def check_targets(targets: Sequence[str]) -> None:
    """Raises SpecError where a target is none, before anything is looked at."""
    for target in targets:
        _parted(target)


def alert(found: Watched, targets: Sequence[str], *, pause_s: float = PAUSE_S) -> list[str]:
    """Send a look's verdict to each target; what could not be reached, in words, after three tries."""
    troubles = []
    for target in targets:
        parts = _parted(target)
        send = SENDERS[parts.scheme]
        for attempt in range(TRIES):
            try:
                send(parts, found)
                break
            except Exception as error:  # whatever it is, the others are told
                said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                if attempt == TRIES - 1:
                    troubles.append(f"{_shown(parts)} could not be told in {TRIES} tries: {said}")
                else:
                    time.sleep(pause_s * 2**attempt)
    return troubles


def _parted(target: str) -> SplitResult:
    parts = urlsplit(target)
    if parts.scheme not in SENDERS:
        raise SpecError(
            f"An alert goes to `log:FILE`, `https://…`, `smtp://HOST?to=…&from=…`; `{target[:80]}` is none "
            f"of them.{nearest(parts.scheme, SENDERS)}"
        )
    if parts.scheme.startswith("smtp") and not (parts.hostname and parse_qs(parts.query).get("to")):
        raise SpecError(
            f"An e-mail needs a host and an address: `smtp://mail.example.com:587?to=ops@example.com`; "
            f"`{_shown(parts)}` lacks one. Add it."
        )
    if parts.scheme == "log" and not parts.path:
        raise SpecError("`log:` needs a file, such as `log:alerts.jsonl`; it names none. Add it.")
    return parts


def _shown(parts: SplitResult) -> str:
    """A target without what may be secret in it."""
    host = parts.hostname or parts.path
    return f"{parts.scheme}:{host}" if parts.scheme == "log" else f"{parts.scheme}://{host}"


def _log(parts: SplitResult, found: Watched) -> None:
    path = Path(parts.path)
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found.plain(), ensure_ascii=False) + "\n")


def _post(parts: SplitResult, found: Watched) -> None:
    import http.client

    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=WAIT_S)
    body = json.dumps({"text": found.sentence, **found.plain()}, ensure_ascii=False).encode()
    try:
        where = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        connection.request("POST", where, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if not 200 <= answer.status < 300:  # a redirect would leave the host that was named
            raise NotSupported(f"it answered {answer.status} {answer.reason}")
    finally:
        connection.close()


def _mail(parts: SplitResult, found: Watched) -> None:
    asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
    message = EmailMessage()
    message["Subject"] = f"Penjing: {' '.join(found.sentence.split())[:150]}"
    message["From"] = asked.get("from", "penjing@localhost")
    message["To"] = asked["to"]
    message.set_content(letter(found))
    context = ssl.create_default_context()
    if parts.scheme == "smtps":
        server: Any = smtplib.SMTP_SSL(
            parts.hostname or "", parts.port or 465, timeout=WAIT_S, context=context
        )
    else:
        server = smtplib.SMTP(parts.hostname or "", parts.port or 25, timeout=WAIT_S)
    with server:
        if parts.username:
            if parts.scheme == "smtp":
                server.starttls(context=context)  # never a password in the open
            password = parts.password or os.environ.get("PENJING_SMTP_PASSWORD", "")
            server.login(unquote(parts.username), unquote(password))
        server.send_message(message)


SENDERS: dict[str, Callable[[SplitResult, Watched], None]] = {
    "log": _log,
    "https": _post,
    "http": _post,
    "smtp": _mail,
    "smtps": _mail,
}


def letter(found: Watched) -> str:
    """The verdict as plain text: what moved, what did not, the texts farthest away."""
    from penjing.jobs.watch import said

    lines = [found.sentence, ""]
    for check in found.verdict.checks if found.verdict else ():
        mark = "moved" if check.moved else "still"
        lines.append(f"{mark}  {said(check)}  p {check.p:.2g}, effect {check.effect:.2f}")
    lines += [
        "",
        *(f"farthest: {' '.join(one['text'].split())[:200]}" for one in found.farthest),
        *found.notes,
    ]
    return "\n".join(lines) + "\n"


def write_metrics(found: Watched, path: Path) -> None:
    """A file for node_exporter's textfile collector, replaced in one step (text format 0.0.4)."""
    model = found.model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    own = f'model="{model}"'
    checks = found.verdict.checks if found.verdict else ()
    series: list[tuple[str, str, list[tuple[str, float]]]] = [
        ("drift_moved", "1 where the last look found that something moved.", [(own, float(found.moved))]),
        (
            "drift_p_value",
            "p-value of each check after Holm's rule.",
            [(f'{own},check="{check.name}"', check.p) for check in checks],
        ),
        (
            "drift_effect_ratio",
            "Share of the rows that would have to be others.",
            [(f'{own},check="{check.name}"', check.effect) for check in checks],
        ),
        ("drift_rows", "Rows that the last look saw.", [(own, float(len(found.new)))]),
        ("drift_last_look_timestamp_seconds", "When the last look was.", [(own, time.time())]),
    ]
    quality = next((check for check in checks if check.name == "quality"), None)
    if quality is not None:
        rows = [(own, quality.facts["is"])]
        series.append(("live_accuracy_ratio", "Right answers among rows with feedback.", rows))
    lines = []
    for name, about, values in series:
        lines += [f"# HELP penjing_{name} {about}", f"# TYPE penjing_{name} gauge"]
        lines += [f"penjing_{name}{{{labels}}} {value:.10g}" for labels, value in values]
    write_text(path, "\n".join(lines) + "\n")
