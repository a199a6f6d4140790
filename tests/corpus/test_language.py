"""Languages are told by script and function words, one sentence being enough."""

import pytest

from penjing.corpus.language import LATIN, function_words, languages
from penjing.corpus.units import chunk

SENTENCES = {
    "en": "The committee said that it would publish the report before the end of the year.",
    "de": "Die Kommission hat gesagt, dass der Bericht noch vor dem Ende des Jahres kommt.",
    "fr": "La commission a dit que le rapport sera publié avant la fin de cette année.",
    "es": "La comisión dijo que el informe se publicará antes de que termine el año.",
    "it": "La commissione ha detto che il rapporto sarà pubblicato prima della fine dell'anno.",
    "pt": "A comissão disse que o relatório não será publicado antes do fim do ano.",
    "nl": "De commissie zei dat het rapport voor het einde van het jaar zal worden gepubliceerd.",
    "zh": "委员会表示，报告将在年底之前公布，NLP 部分除外。",
    "ja": "委員会は、報告書を年末までに発表すると述べました。",
    "ko": "위원회는 연말까지 보고서를 발표할 것이라고 말했다.",
    "ru": "Комиссия заявила, что доклад будет опубликован до конца года.",
    "ar": "قالت اللجنة إن التقرير سينشر قبل نهاية العام.",
    "und": "xqzt brrm 123 kvlp",
    "code": "def add(a, b):\n    if (a > b):\n        return {'sum': [a + b]}\n",
}


def test_a_sentence_is_enough() -> None:
    texts = list(SENTENCES.values())
    assert dict(zip(SENTENCES, languages(texts, chunk(texts)), strict=True)) == {k: k for k in SENTENCES}


def test_chinese_with_formulas_is_no_code() -> None:
    text = "其中 f(x) = {a(x) + b(x)}; g(x) = [c(x)] 为连续函数，且满足以下条件，证明其收敛性。"
    assert languages([text], chunk([text])) == ["zh"]


def test_nothing_is_no_language() -> None:
    assert languages(["", "1234 !!"], chunk(["", "1234 !!"])) == ["und", "und"]


def test_function_words_are_counted_by_language() -> None:
    counts = function_words(chunk(["the cat and the dog", "der Hund und die Katze"]))
    assert counts[0, LATIN.index("en")] == 3
    assert counts[1, LATIN.index("de")] == 3


@pytest.mark.slow
def test_py3langid_tells_languages_that_have_no_list_here() -> None:
    pytest.importorskip("py3langid")
    text = "Komisja powiedziała, że raport zostanie opublikowany przed końcem roku."
    assert languages([text], chunk([text]), by="py3langid") == ["pl"]
