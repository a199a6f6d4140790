"""What a corpus is asked to be: one validated, frozen record from YAML, keywords or `--set key=value`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from penjing.errors import SpecError, nearest
from penjing.keys import STRICT
from penjing.yaml_file import read_yaml

Kind = Literal["email", "phone", "id_card", "bank_card", "iban", "ip", "key"]


class NormaliseSpec(BaseModel):
    """How signs are written alike."""

    model_config = STRICT

    unicode: Literal["nfc", "nfkc", "keep"] = Field(
        "nfc", description="nfkc also folds ligatures, circled signs and full-width punctuation"
    )
    width: Literal["half", "keep"] = Field(
        "half", description="half: full-width letters and digits become half-width; punctuation stays"
    )
    chinese: Literal["keep", "simplified", "traditional"] = Field(
        "keep", description="which Chinese script all is written in (needs OpenCC)"
    )


class LanguageSpec(BaseModel):
    """Which languages stay."""

    model_config = STRICT

    keep: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="such as [zh, en, code]; all when not given, unknown ones (`und`) too",
    )
    by: Literal["words", "py3langid"] = Field(
        "words",
        description="words: scripts and function words; py3langid: 97 languages, a tenth of the speed",
    )


class QualitySpec(BaseModel):
    """Which documents are good enough. Shares lie in 0..1; null turns a rule off."""

    model_config = STRICT

    least_units: int | None = Field(
        20, ge=1, description="words, or characters of Chinese, that a document needs (Gopher: 50)"
    )
    word_length: tuple[float, float] | None = Field((3, 10), description="mean letters a word (Gopher)")
    letters: float | None = Field(
        0.6, description="least share of letters and digits among signs; code: 0.25"
    )
    words: float | None = Field(0.7, description="least share of words with a letter in them (Gopher: 0.8)")
    symbols: float | None = Field(0.1, description="most `#` and `…` a word (Gopher)")
    bullets: float | None = Field(0.9, description="most lines that begin with a bullet (Gopher)")
    ellipses: float | None = Field(0.3, description="most lines that end with an ellipsis (Gopher)")
    stop_words: int | None = Field(
        2, description="least kinds of function words, where there are 50 units (Gopher)"
    )
    lines: float | None = Field(0.3, description="most lines that stand in the document already (Gopher)")
    repetition: float = Field(
        1.0, ge=0, description="factor on Gopher's limits of repeated n-grams; 0 turns them off"
    )
    boilerplate: float | None = Field(
        0.3, description="most characters in lines of cookie notices, menus, 版权所有 and the like (C4)"
    )
    garbled: float | None = Field(0.01, description="most signs that come of wrong decoding")
    code_line: int | None = Field(1000, description="longest line of code (Codex)")
    code_mean_line: float | None = Field(
        100, description="most characters a line of code in the mean (Codex)"
    )


class TwinsSpec(BaseModel):
    """Which documents are the same."""

    model_config = STRICT

    exact: bool = Field(True, description="drop documents equal to one before but for case and space")
    near: float | None = Field(
        0.8, gt=0, le=1, description="drop documents whose n-grams overlap so much (Jaccard); null for none"
    )
    ngram: int = Field(5, ge=1, le=32, description="words, or characters of Chinese, of an n-gram")
    lines: int | None = Field(
        None, ge=1, description="take out lines that stand in more documents than this; null for none"
    )
    line_length: int = Field(20, ge=1, description="shortest line that `lines` takes out, in characters")


class CorpusSpec(BaseModel):
    """A whole corpus. Made by `read(path_or_mapping, sets=..., **keywords)` below."""

    model_config = STRICT

    raw: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="source: files, folders, globs; a bare path finds its sources itself"
    )
    out: str = Field("corpus", min_length=1, description="folder of the corpus")
    text: str | None = Field(None, description="column of the text in JSON lines and Parquet")
    documents: Literal["blank_line", "line", "file"] = Field(
        "blank_line", description="what parts documents in plain text"
    )
    encoding: str | None = Field(None, description="such as gb18030; found out when not given")
    broken: Literal["skip", "refuse"] = Field(
        "skip", description="what happens to files and lines that cannot be read: counted, or an error"
    )
    longest: int = Field(
        2_000_000, ge=100, description="characters of the longest document; a longer one is dropped"
    )
    normalise: NormaliseSpec = Field(NormaliseSpec(), description="how signs are written alike")
    language: LanguageSpec = Field(LanguageSpec(), description="which languages stay")
    quality: QualitySpec | None = Field(QualitySpec(), description="which documents stay; null keeps all")
    twins: TwinsSpec = Field(TwinsSpec(), description="which documents are the same")
    against: tuple[str, ...] = Field((), description="test sets whose text may not be in the corpus")
    against_ngram: int = Field(
        13, ge=5, description="words, or characters of Chinese, that must not be shared"
    )
    pii: Literal["keep", "mask", "drop"] = Field("keep", description="what happens to personal data and keys")
    pii_kinds: tuple[Kind, ...] = Field(
        ("email", "phone", "id_card", "bank_card", "iban", "ip", "key"),
        description="which kinds are looked for",
    )
    valid_share: float = Field(0.01, ge=0, lt=1, description="share of documents set aside for validation")
    weights: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="how often each source is drawn; by `exponent` when not given"
    )
    exponent: float = Field(
        1.0, ge=0, le=1, description="weights are characters ** exponent; 1 is as they lie"
    )
    seed: int = Field(0, ge=0, description="of the split")
    part_mib: float = Field(16.0, gt=0, description="text a process takes at a time, MiB")
    report: Literal["en", "zh"] = Field("en", description="language of the page")
    samples: int = Field(20, ge=0, description="documents quoted for each reason they were dropped for")

    def written(self) -> dict[str, Any]:
        """Plain values, every default written out: the file that repeats the work."""
        found = self.model_dump(mode="json")
        if set(found["raw"]) == {""}:  # bare paths, as they were given
            found["raw"] = found["raw"][""]
        return found


SECTIONS: dict[str, type[BaseModel]] = {
    "normalise": NormaliseSpec,
    "language": LanguageSpec,
    "quality": QualitySpec,
    "twins": TwinsSpec,
}


def read(
    source: str | Path | Mapping[str, Any] | None = None, *, sets: Iterable[str] = (), **keywords: Any
) -> CorpusSpec:
    """A validated spec: a YAML file or mapping, with keywords and `--set` pairs laid over it.

    Raises:
        SpecError: no such file, an unknown key, a value of the wrong type or range.
    """
    import copy

    given = (
        copy.deepcopy(dict(source))
        if isinstance(source, Mapping)
        else read_yaml(Path(source))
        if source
        else {}
    )
    for key, value in [*keywords.items(), *map(_pair, sets)]:
        section, _, name = key.rpartition(".")
        place = given if not section else given.setdefault(section, {})
        if not isinstance(place, dict):
            raise SpecError(f"`{key}` cannot be set: `{section}` is {place!r}. Make it a section of keys.")
        place[name] = value
    _known(given)
    if not given.get("raw"):
        raise SpecError(
            "Raw text was wanted; none is given. Name files: `penjing corpus prepare raw/ -o corpus/`."
        )
    given["raw"] = _sources(given["raw"])
    try:
        return CorpusSpec.model_validate(given)
    except ValidationError as error:
        said = [
            f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}; it is {e['input']!r}." for e in error.errors()
        ]
        raise SpecError(f"{' '.join(said)} Change it in the spec or with `--set KEY=VALUE`.") from error


def _pair(pair: str) -> tuple[str, Any]:
    import yaml

    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"`--set` takes key=value, such as twins.near=0.7; it got `{pair}`.")
    try:
        return key.strip(), yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise SpecError(f"`--set {pair}`: the value is not YAML. Put quotes around it.") from error


def _known(given: Mapping[str, Any]) -> None:
    inner = [f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields]
    for key, value in given.items():
        model = SECTIONS.get(key)
        unknown = [key] if key not in CorpusSpec.model_fields else []
        if model and isinstance(value, Mapping):
            unknown += [f"{key}.{name}" for name in value if name not in model.model_fields]
        for one in unknown:
            moved = next((k for k in inner if k.endswith(f".{one}")), "")
            near = f" Did you mean `{moved}`?" if moved else nearest(one, [*CorpusSpec.model_fields, *inner])
            keys = model.model_fields if model else CorpusSpec.model_fields
            raise SpecError(f"`{one}` is not a key of a corpus.{near} Keys: {', '.join(keys)}.")


def _sources(raw: Any) -> dict[str, tuple[str, ...]]:
    """Source to files. The source of a bare path is found from where files lie; it stands here as ``."""
    if not isinstance(raw, Mapping):
        raw = {"": raw}
    lists = {str(k): [v] if isinstance(v, str | Path) else v for k, v in raw.items()}
    bad = next((k for k, v in lists.items() if not isinstance(v, list | tuple) or not v), None)
    if bad is not None:
        raise SpecError(f"`raw.{bad}` must be a path or a list of paths; it is {raw[bad]!r}. Name its files.")
    return {name: tuple(map(str, paths)) for name, paths in lists.items()}
