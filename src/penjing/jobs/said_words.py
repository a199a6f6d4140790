"""Words of the report where a run is about texts that are said, code too; `words.py` puts them with the
others."""

from __future__ import annotations

_DRAWN = (
    "Intervals are 95 % bootstrap intervals (rows drawn with replacement 1,000 times); the difference to the "
    "baseline is drawn in pairs, on the same rows. "
)
_NEAREST = "The baseline says what was said of the nearest source of the training rows, by TF-IDF."
_DRAWN_ZH = "区间是 95 % 自助法区间（有放回抽取各行 1,000 次）；与基线的差距按同样的行成对抽取。"
_NEAREST_ZH = "基线照抄训练数据中 TF-IDF 最接近的原文的答案。"
_ROUGE = (
    "ROUGE is the F-measure of words, pairs of words and the longest common subsequence, in small letters; "
    "each Chinese character is a word. "
)
_ROUGE_ZH = "ROUGE 是词、相邻词对、最长公共子序列的 F 值，不分大小写，每个汉字算一个词。"

ENGLISH: dict[str, str] = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "words": "words a text",
    "length_ratio": "length over that of the wanted texts",
    "repeated": "3-grams said before in the same text",
    "empty": "empty texts",
    "unended": "texts that did not end",
    "similarity": "edit similarity",
    "exact": "exactly right",
    "pass_at_1": "pass@1",
    "pass_at_10": "pass@10",
    "pass_at_100": "pass@100",
    "how_translate": "BLEU and chrF are sacrebleu's, over all rows, 0 to 100. " + _ROUGE + _DRAWN + _NEAREST,
    "how_summarize": _ROUGE + _DRAWN + "The baseline says the first sentences of the source.",
    "how_generate": _ROUGE + _DRAWN + _NEAREST,
    "how_answer_in_words": "Exact match and F1 are those of SQuAD's script, or of CMRC 2018's for Chinese; "
    "each is the best over the right answers. " + _DRAWN + _NEAREST,
    "how_code": "Edit similarity is 1 less the edits over the longer text; pass@k the chance that one of k "
    "tries passes all tests (Chen et al. 2021). "
    + _DRAWN
    + "The baseline says what followed the nearest lines of the training rows.",
}

CHINESE: dict[str, str] = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "words": "每段词数",
    "length_ratio": "长度与标准答案之比",
    "repeated": "段内重复的三元词组",
    "empty": "空答案",
    "unended": "没有说完的答案",
    "similarity": "编辑相似度",
    "exact": "完全正确",
    "pass_at_1": "pass@1",
    "pass_at_10": "pass@10",
    "pass_at_100": "pass@100",
    "how_translate": "BLEU 与 chrF 由 sacrebleu 对全部行计算，0 到 100。"
    + _ROUGE_ZH
    + _DRAWN_ZH
    + _NEAREST_ZH,
    "how_summarize": _ROUGE_ZH + _DRAWN_ZH + "基线取原文的前几句。",
    "how_generate": _ROUGE_ZH + _DRAWN_ZH + _NEAREST_ZH,
    "how_answer_in_words": "完全匹配与 F1 与 SQuAD 评分程序相同，中文按 CMRC 2018；"
    "各取与几个标准答案中最好的一个。" + _DRAWN_ZH + _NEAREST_ZH,
    "how_code": "编辑相似度是 1 减去编辑次数与较长文本之比；pass@k 是 k 次尝试中至少一次通过全部测试的概率"
    "（Chen 等 2021）。" + _DRAWN_ZH + "基线照抄训练数据中最接近的几行之后的内容。",
}
