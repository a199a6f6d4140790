"""What all tests share: tiny random models with trained tokenizers, a small CSV, the data beside it all.

`tiny("bert")` gives a folder such as a user would have: config.json, model.safetensors, tokenizer.json. It is
made on the CPU, once a session. To add a family: one entry in families.FAMILIES.
No test reaches beyond this machine: sockets are closed but for loopback.
"""

import ipaddress
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from common import QUICK
from families import BERT_FRAME, FAMILIES, Family

# A busy machine draws examples slowly, and that is no fault of theirs.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

LONG = ("test_several.py", "test_pet.py")  # their slow tests take half a minute to two minutes each

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

# Three kinds of ticket whose words give them away, and a little Chinese.
PARTS = {
    "billing": (
        ["my card was charged", "the invoice shows", "i was billed"],
        ["twice", "a wrong fee", "too much"],
    ),
    "delivery": (
        ["my parcel is", "the courier says it is", "the order was"],
        ["late", "lost", "sent elsewhere"],
    ),
    "account": (
        ["i cannot log in,", "my password was", "the login page says"],
        ["locked", "reset", "refused again"],
    ),
}
CHINESE = ["我的快递还没有到", "密码忘记了怎么办", "账单多扣了一次钱", "包裹在哪里?", "登录不了账号。"]


def tickets(n: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """`n` pairs (text, label), classes in turn, texts all different."""
    draw = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < n:
        label = list(PARTS)[len(rows) % len(PARTS)]
        heads, tails = PARTS[label]
        rows[f"{draw.choice(heads)} {draw.choice(tails)} on order {draw.randrange(10, 1000)}"] = label
    return list(rows.items())


def make_tokenizer(family: Family) -> Any:
    """A transformers tokenizer of at most 320 pieces, trained on tickets."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([*family.words.values(), *family.more_words]))
    common: dict[str, Any] = {"vocab_size": 320, "special_tokens": special, "show_progress": False}
    if family.algorithm == "wordpiece":
        tok = Tokenizer(models.WordPiece(unk_token=family.words["unk"]))
        tok.normalizer = normalizers.BertNormalizer(lowercase=True)
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**common)
    elif family.algorithm == "bytes":
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer, tok.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
    else:
        tok = Tokenizer(models.Unigram())
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token=family.words["unk"], **common)
    tok.train_from_iterator([text for text, _ in tickets(90)] + CHINESE, trainer)
    if family.frame:
        single, pair = family.frame
        ids = [(word, tok.token_to_id(word)) for word in special]
        tok.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    types = ["token_type_ids"] if family.frame is BERT_FRAME else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        model_max_length=128,
        model_input_names=["input_ids", *types, "attention_mask"],
        additional_special_tokens=list(family.more_words),
        chat_template=family.chat,
        **{f"{role}_token": word for role, word in family.words.items()},
    )


def make_tiny(folder: Path, family: Family, **changes: Any) -> Path:
    """Save a random model of the family, with `changes` to its config, and its tokenizer into `folder`."""
    import torch
    import transformers

    tokenizer = make_tokenizer(family)
    ids = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id", None)
        for role in ("pad", "bos", "eos", "cls", "sep")
    }
    known = {role: i for role, i in ids.items() if i is not None} | {"pad_token_id": ids["pad_token_id"]}
    config = getattr(transformers, family.config)(
        **{"vocab_size": len(tokenizer), **known, **family.shape, **changes}
    )
    for name in ("initializer_range", "init_std"):
        if hasattr(config, name):  # about 1/sqrt(width): with the usual 0.02 attention would hardly matter
            setattr(config, name, 0.15)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = getattr(transformers, family.model)(config)
        with torch.no_grad():
            for weight in model.parameters():  # biases of 0 and gains of 1 would hide their absence
                if weight.ndim == 1:
                    weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny(family, **config_changes)` -> folder of a random checkpoint: 2 layers, width 32. Only read it.

    gpt2 and llama have no padding token, as their originals; modernbert has a window of 16; llama and qwen3
    share keys between heads; qwen3 has a chat template; only bert, electra and albert tell segments apart.
    """
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))
    made: dict[str, Path] = {}

    def get(family: str, **changes: Any) -> Path:
        key = "-".join([family, *(f"{name}={value}" for name, value in sorted(changes.items()))])
        if key not in made:
            made[key] = make_tiny(tmp_path_factory.mktemp(family), FAMILIES[family], **changes)
        return made[key]

    return get


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return SHARED


@pytest.fixture
def tiny_csv(tmp_path: Path) -> Path:
    """tickets.csv: columns text and label, 90 rows, three classes that a bag of words tells apart."""
    path = tmp_path / "tickets.csv"
    lines = ["text,label", *(f'"{text}",{label}' for text, label in tickets(90))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def small(tiny: Callable[..., Path], tiny_csv: Path, tmp_path: Path) -> dict[str, Any]:
    """A spec of seconds: tiny BERT on tickets.csv, six steps with three validations."""
    where = {"base": str(tiny("bert")), "data": {"train": str(tiny_csv)}, "out": str(tmp_path / "runs")}
    return {**where, "train": {"steps": 6, "evals": 3, "batch": 16}, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="session")
def tuned(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`tuned("lora")` -> a finished run of that method on tiny BERT. Only read it."""
    made: dict[str, Any] = {}

    def get(method: str = "full") -> Any:
        if method not in made:
            from penjing import tune

            folder = tmp_path_factory.mktemp("tuned")
            rows = "".join(f'"{text}",{label}\n' for text, label in tickets(90))
            (folder / "tickets.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
            settings = {"steps": 4, "evals": 1, "device": "cpu", "precision": "fp32", "out": folder}
            made[method] = tune(base=tiny("bert"), train=folder / "tickets.csv", method=method, **settings)
        return made[method]

    return get


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test begins from the same random states, whatever ran before it."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, _cache: Path) -> None:
    """No connection leaves this machine, and nothing is read from or left in the user's cache."""
    monkeypatch.setenv("PENJING_CACHE", str(_cache))
    for name in (
        "HF_HUB_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
    ):  # for child processes too
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                raise OSError(
                    f"a test tried to reach {address[0]}; tests stay on this machine (tests/conftest.py)"
                )
            return call(self, address)

        return connect

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host and not _is_loopback(host):
            raise socket.gaierror(
                f"a test looked up {host!r}; tests stay on this machine (tests/conftest.py)"
            )
        return real_look_up(host, *args, **kwargs)

    real_look_up = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def _is_loopback(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in ("localhost", "", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test over families only QUICK are fast; tests marked gpu are skipped where there is none."""
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and call.params.get("family", QUICK[0]) not in QUICK:
            item.add_marker(pytest.mark.slow)
        if item.path.name in LONG and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.long)
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting:
        import torch

        if not torch.cuda.is_available():
            for item in wanting:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))
