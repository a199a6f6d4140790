"""The documentation says what is so: commands run, links lead somewhere, examples work, tables are fresh.

A command is a line of a fenced block that begins `penjing` or `python -m penjing` (after `$ `, if any); what
stands below it, up to the next `$ `, is its output. Files that commands name are made by `desk` below.
"""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from typer.main import get_command
from typer.testing import CliRunner

from doc_samples import SAMPLES
from penjing import plugin
from penjing.cli import app
from penjing.jobs.demo import DESK

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))) if p.is_file()
]
NAMES = [p.relative_to(ROOT).as_posix() for p in PAGES]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"^(?:\$ )?(?:.*\| )?(?:python -m |\.venv/bin/)?penjing (?P<words>[^\n]*)$")
FORMS = {"--schema", "--regex", "--choices"}  # of bundles that say words: tests/tasks/test_generate.py
QUICK = {"list", "show", "check", "predict", "evaluate", "report"}  # what trains nothing
# Of what `check` prints, these lines depend on rows and spec alone, so they are the same over any base.
EXACT = ("ok    rows", "note  rows", "ERROR", "penjing: ", "ok    spec")
MISSION = {"A": 9, "B": 11, "C": 17, "D": 8, "E": 6, "F": 4, "G": 7, "H": 15, "I": 6, "J": 3, "K": 4, "L": 3}


@dataclass(frozen=True)
class Command:
    """One command line of a page, as words after `penjing`, and the lines it is said to print."""

    page: str
    words: tuple[str, ...]
    said: tuple[str, ...]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from (found[2] for found in FENCE.finditer(text_of(page)) if found[1] == language)


def words_of(line: str) -> tuple[str, ...]:
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "<", "&&")]
    return tuple(words[: min(ends, default=len(words))])


def commands() -> Iterator[Command]:
    for page, name in zip(PAGES, NAMES, strict=True):
        for fence in FENCE.finditer(text_of(page)):
            if fence[1] in ("python", "yaml", "json"):
                continue
            lines = fence[2].replace("\\\n", " ").split("\n")
            for i, line in enumerate(lines):
                call = CALL.match(line)
                if call and (line.startswith("$ ") or not fence[2].lstrip().startswith("$ ")):
                    rest = lines[i + 1 :]
                    end = next((j for j, other in enumerate(rest) if other.startswith("$ ")), len(rest))
                    yield Command(name, words_of(call["words"]), tuple(rest[:end]))


COMMANDS = list(commands())


def shown(command: Command) -> str:
    return f"{command.page}: {' '.join(command.words)[:70]}"


def is_quick(command: Command) -> bool:
    if FORMS & {*command.words}:
        return False
    return command.words[0] in QUICK or "--dry-run" in command.words


@pytest.mark.parametrize("command", COMMANDS, ids=shown)
def test_a_documented_command_parses(command: Command) -> None:
    words = command.words[2:] if command.words[0] == "--trust" else command.words
    verb, *rest = words
    if verb.startswith("-"):
        assert verb in ("--version", "--help", "-h")
        return
    found, rest = verb_of([verb, *rest])
    found.make_context(verb, rest)  # raises on what it does not know


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words begin with, in a group or not, and the rest of them."""
    found: Any = get_command(app)
    while hasattr(found, "commands") and words:
        assert words[0] in found.commands, f"there is no verb `{words[0]}`"
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_verbs_and_options_named_in_running_text_exist(page: Path) -> None:
    for call in re.findall(r"`penjing ([^`]+)`", FENCE.sub("", text_of(page))):
        if call.startswith("-"):
            continue
        found, rest = verb_of(call.split())
        known = {option for p in found.params for option in (*p.opts, *p.secondary_opts)}
        asked = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert asked <= {*known, "--help"}, call


def example(page: str, name: str, language: str) -> str:
    """The block of a page that begins with a comment naming this file."""
    return next(b for b in blocks(DOCS / page, language) if b.startswith(f"# {name}\n"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the pages name."""
    folder = tmp_path_factory.mktemp("desk")
    for name, source in (("tickets.csv", "en.train.csv"), ("tickets-test.csv", "en.test.csv")):
        (folder / name).write_bytes((DESK / source).read_bytes())
    few = (folder / "tickets-test.csv").read_text("utf-8").splitlines()[:4]
    (folder / "few.csv").write_text("\n".join(few) + "\n", encoding="utf-8")
    (folder / "gongdan.csv").write_bytes((DESK / "zh.train.csv").read_text("utf-8").encode("gb18030"))
    (folder / "gongdan-test.csv").write_bytes((DESK / "zh.test.csv").read_bytes())
    for name, lines in SAMPLES.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for page in PAGES:
        for block in blocks(page, "yaml"):
            if named := re.match(r"# (\S+\.yaml)\n", block):
                (folder / named[1]).write_text(block, encoding="utf-8")
    (folder / "my_ideas.py").write_text(example("plugins.md", "my_ideas.py", "python"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def desk_run(desk: Path, tiny: Callable[..., Path]) -> Path:
    """A run of one step on the desk's rows, over tiny BERT."""
    from penjing import tune

    settings = {"steps": 1, "evals": 0, "cache": False, "device": "cpu", "precision": "fp32"}
    rows = {"train": str(desk / "tickets.csv"), "test": str(desk / "tickets-test.csv")}
    return tune(base=str(tiny("bert")), out=str(desk / "runs"), name="docs", **rows, **settings).folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if is_quick(c)], ids=shown)
def test_a_documented_command_does_what_the_page_says(
    command: Command, desk: Path, desk_run: Path, tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(desk)
    words = [str(desk_run) if word.startswith("runs/") else word for word in command.words]
    if words[0] in ("check", "tune"):
        if "--base" not in words:
            words += ["--base", ""]
        at = words.index("--base") + 1
        words[at] = words[at] if "nowhere" in words[at] else str(tiny("bert"))
        words += ["--set", "device=cpu"]
    if words[0] == "report":
        words += [word for word in ("--no-open",) if word not in words]
    done = CliRunner().invoke(app, words, input="where is my parcel\n")
    failing = any(line.startswith(("ERROR", "penjing: ")) for line in command.said)
    assert done.exit_code == int(failing), (done.output, done.exception)
    for line in command.said:
        if line.startswith(EXACT) and "nowhere" not in line:
            assert line in done.output, line


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_yaml_blocks_are_specs(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penjing import spec
    from penjing.chains import asked, update_spec
    from penjing.corpus import asked as corpus

    monkeypatch.syspath_prepend(desk)
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block)
        if "raw" in values:
            assert corpus.read(values).written().keys() >= values.keys()
            continue
        if "gate" in values:  # an update of a live model
            update_spec.read(values)
            continue
        if "search" in values:  # a spec with spaces in it
            assert asked.read(values).written().keys() >= values.keys()
            continue
        assert spec.read(values).written().keys() >= values.keys() - {"tasks"}  # written as `task`


def slug(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[\s-]+", "-", plain)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=[*NAMES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", text_of(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(other)), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_load_nothing_from_elsewhere_and_name_no_machine(page: Path) -> None:
    text = text_of(page)
    assert not re.search(r"!\[[^\]]*\]\(http|<script|<link|<iframe|src=.http", text)
    assert not re.search(r"(?<![\w.])/(?:work|tmp|root|home)/", text), "a path of somebody's machine"


def test_every_page_is_in_the_contents() -> None:
    config = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))

    def files(part: Any) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        else:
            for one in part.values() if isinstance(part, dict) else part:
                yield from files(one)

    named = list(files(config["nav"]))
    assert sorted(named) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


@pytest.mark.slow
def test_tables_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    assert spec
    assert spec.loader
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    pages = [p for p in PAGES if DOCS in p.parents]
    behind = [p.name for p in pages if maker.renewed(text_of(p)) != text_of(p)]
    assert not behind, f"run `python docs/make_tables.py`: {behind}"
    there = {name.rpartition(" ")[2] for p in pages for _, name, _, _ in maker.BLOCK.findall(text_of(p))}
    of_plug_ins = {
        name for kind in plugin.KINDS for name in plugin.found(kind)
    }  # a page may tell them in words
    assert set(maker.TABLES) - of_plug_ins <= there <= set(maker.TABLES)


def lines_of_coverage() -> list[list[str]]:
    lines = [line for line in text_of(DOCS / "coverage.md").splitlines() if re.match(r"\| [A-L]\d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_coverage_has_every_row_of_the_mission() -> None:
    wanted = [f"{part}{i + 1}" for part, n in MISSION.items() for i in range(n)]
    assert [row[0] for row in lines_of_coverage()] == wanted


@pytest.mark.parametrize("row", lines_of_coverage(), ids=lambda row: row[0])
def test_coverage_names_tests_that_exist(row: list[str]) -> None:
    _, what, state, proof = row
    tests = re.findall(r"`(tests/[^`]+)`", proof)
    assert what
    assert re.match(r"(done|partly|not yet)(: |$)", state), state
    assert all((ROOT / test).is_file() for test in tests), tests
    assert bool(tests) == (not state.startswith("not yet"))


def test_families_said_to_run_packed_or_padded_are_those_tested() -> None:
    tree = ast.parse(text_of(ROOT / "tests" / "models" / "test_packing.py"))
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("PACKED", "PADDED")
    }
    for way, families in lists.items():
        assert f"| {way.lower()} | {', '.join(families)} |" in text_of(DOCS / "bases.md")


@pytest.fixture
def ideas(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(desk)


@pytest.mark.slow
def test_the_example_method_trains_norms_only(ideas: None, small: dict[str, Any]) -> None:
    from penjing import tune

    run = tune(small, method={"my_ideas.norms": {"biases": False}})
    with safe_open(run.folder / "best" / "changed.safetensors", framework="pt") as file:
        names = list(file.keys())
    assert names
    assert all("LayerNorm.weight" in name for name in names)
    assert run.bundle.predict(["my parcel is late"])[0]["label"]


@pytest.mark.slow
def test_the_example_technique_at_no_strength_changes_nothing(ideas: None, small: dict[str, Any]) -> None:
    from penjing import tune

    def head(strength: float | None) -> bytes:
        chosen = [] if strength is None else [{"my_ideas.gradient_noise": {"strength": strength}}]
        run = tune(small, techniques=chosen, name=f"noise-{strength}")
        return (run.folder / "best" / "head.safetensors").read_bytes()

    assert head(None) == head(0.0) != head(0.5)


@pytest.mark.slow
def test_the_example_of_rows_prints_what_the_page_says(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = text_of(DOCS / "rows.md")
    found = re.search(r"```python\n(from penjing.data.clean.*?)```\n+```text\n(.*?)```", page, re.DOTALL)
    assert found
    done = subprocess.run([sys.executable, "-c", found[1]], cwd=desk, capture_output=True, text=True)
    assert done.stdout == found[2], done.stderr


@pytest.mark.slow
def test_the_example_of_the_bank_prints_what_the_page_says(desk: Path) -> None:
    page = text_of(DOCS / "bank.md")
    found = re.search(r"```python\n(.*?)```\n+```text\n(.*?)```", page, re.DOTALL)
    assert found
    done = subprocess.run([sys.executable, "-c", found[1]], cwd=desk, capture_output=True, text=True)
    assert done.stdout == found[2], done.stderr


@pytest.mark.slow
def test_the_pages_build_without_a_warning() -> None:
    pytest.importorskip("zensical")
    command = [sys.executable, "-m", "zensical", "build", "--config-file", "mkdocs.yml", "--strict"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower()
