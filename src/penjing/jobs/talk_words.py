"""Words of the report where a run is about answers and replies; `words.py` puts them with the others."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    "exact_match": "exact match",
    "f1": "F1 of answers",
    "f1_answerable": "F1 where there is an answer",
    "unanswerable_right": "right where there is none",
    "how_answer": "Exact match and F1 are those of SQuAD's script (case, punctuation and articles dropped, "
    "words in common counted), or of CMRC 2018's for Chinese (characters, the longest run in common); each "
    "is the best over the right answers, and where the text holds none, saying none is right. Intervals are "
    "95 % bootstrap intervals (questions drawn with replacement 1,000 times); the difference to the baseline "
    "is drawn in pairs. Confidence is the probability of the answer's first token times that of its last. "
    "The baseline takes the sentence that shares most with the question, and in it the words nearest to "
    "those of the question.",
    "perplexity": "perplexity",
    "token_accuracy": "tokens said rightly",
    "preference_accuracy": "preferred rightly",
    "margin": "margin over the base",
    "chosen_loss": "loss of better replies",
    "how_prefer": "A pair is preferred rightly where the model is further above the base on the better reply "
    "than on the worse (a tie counts half; without a reference, where it finds it likelier a token). The "
    "margin is by how much, in nats. Intervals are 95 % bootstrap intervals (pairs drawn with replacement "
    "1,000 times).",
    "how_chat": "Loss is the mean negative log-likelihood of the tokens of replies, stop tokens too, in "
    "nats; perplexity its exponential; a token is said rightly where it is the likeliest after the true ones "
    "before it. Questions, system messages and tools' answers count nothing. The interval is a 95 % "
    "bootstrap interval (conversations drawn with replacement). "
    "Before tuning means the base with the same template.",
}

CHINESE: dict[str, str] = {
    "exact_match": "完全匹配",
    "f1": "答案 F1",
    "f1_answerable": "有答案时的 F1",
    "unanswerable_right": "无答案时的正确率",
    "how_answer": "完全匹配与 F1 与 SQuAD 评分程序相同（忽略大小写、标点和冠词，数共有的词），"
    "中文按 CMRC 2018（逐字，数最长的共同连续片段）；各取与几个标准答案中最好的一个，"
    "原文没有答案时，回答没有才算对。区间是 95 % 自助法区间（有放回抽取各题 1,000 次）；"
    "与基线的差距成对抽取。置信度是答案首词元与末词元概率之积。"
    "基线取与问题共有信息最多的句子中最靠近问题用词的片段。",
    "perplexity": "困惑度",
    "token_accuracy": "词元正确率",
    "preference_accuracy": "偏好正确率",
    "margin": "相对基座的差距",
    "chosen_loss": "较优回复的损失",
    "how_prefer": "若模型相对基座对较优回复的提升大于对较差回复的提升，则该对判对（相等计一半；"
    "无参考模型时比较每词元的似然）。差距即二者之差，单位为奈特。"
    "区间是 95 % 自助法区间（有放回抽取各对 1,000 次）。",
    "how_chat": "损失是回复各词元（含结束符）负对数似然的均值，单位为奈特；困惑度是其指数；"
    "在真实上文之后最可能的词元恰为原词元，才算说对。提问、系统消息和工具结果都不计入。"
    "区间是 95 % 自助法区间（有放回抽取各段对话）。微调前指用同一模板的基座。",
}
