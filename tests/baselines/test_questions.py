"""The baseline of questions: the sentence and the words near the question's."""

from penjing.baselines.questions import fit_questions
from penjing.data.questions import Answer, Question


def test_the_answer_comes_from_the_sentence_that_shares_most_with_the_question() -> None:
    text = "Ann lives in Rome. The parcel of Bob was sent to Oslo. It rains, they say."
    items = [Question("Where was the parcel of Bob sent to?", text, (Answer("Oslo", 49, 53),))]
    (found,) = fit_questions(items)(items)
    start, end, met = found
    assert text[start:end] == "Oslo"
    assert 0 < met <= 1


def test_an_answer_has_as_many_words_as_usual_and_chinese_is_read_by_characters() -> None:
    text = "本作由光荣开发。玩家以水枪作战。"
    items = [Question("玩家以什么作战？", text, (Answer("水枪", 11, 13),))]
    ((start, end, _),) = fit_questions(items)(items)
    assert end - start == 2
    assert 8 <= start < len(text)


def test_a_text_without_words_has_no_answer() -> None:
    items = [Question("?", "...")]
    assert fit_questions(items)(items) == [(0, 0, 0.0)]
