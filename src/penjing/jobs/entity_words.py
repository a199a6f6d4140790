"""Words of the report where a run is about entities; `words.py` puts them with the others."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    "intent_accuracy": "intent accuracy",
    "frame_accuracy": "intent and all slots right",
    "entities": "entities",
    "entities_n": "{n} entities",
    "of_its_entities": "{count} of its {total} entities",
    "heat_about_entities": "Rows are the truth, columns the answers, of entities whose borders are right; "
    "(none): no entity stands there. Numbers are entities; the pairs most often confused are listed below.",
    "how_tag": "An entity counts where start, end and label are all right, as in the CoNLL scorer and "
    "seqeval. Micro F1 is over all entities, macro F1 the mean over labels that appear. Intervals are 95 % "
    "bootstrap intervals (rows, not entities, drawn with replacement 1,000 times); the difference to the "
    "baseline is drawn in pairs, on the same rows. An entity's confidence is the smallest probability among "
    "its tags. The baseline is logistic regression on each word, its shape and its neighbours, fitted on the "
    "same training rows.",
    "how_relate": "Official macro F1 is the mean over relations, both directions together and Other left "
    "out, as in SemEval-2010 task 8. Intervals are 95 % bootstrap intervals (rows drawn with replacement "
    "1,000 times); the difference to the baseline is drawn in pairs, on the same rows. The baseline is "
    "TF-IDF of the entities and the words between them with logistic regression, fitted on the same rows.",
    "official_f1": "official macro F1",
}

CHINESE: dict[str, str] = {
    "intent_accuracy": "意图准确率",
    "frame_accuracy": "意图与槽位全对",
    "entities": "实体数",
    "entities_n": "{n} 个实体",
    "of_its_entities": "{total} 个实体中的 {count} 个",
    "heat_about_entities": "行是真实类别，列是模型的回答，只计边界正确的实体；(none) 表示该处没有实体。"
    "数字是实体数。最常混淆的类别列在下面。",
    "how_tag": "起点、终点、类别全对才算对，与 CoNLL 评分程序及 seqeval 相同。微平均 F1 计所有实体，"
    "宏平均 F1 只对出现过的类别取平均。区间是 95 % 自助法区间（有放回抽取各行而非实体 1,000 次）；"
    "与基线的差距按同样的行成对抽取。实体的置信度是其各标记概率中最小的一个。"
    "基线是逐词的逻辑回归，特征为词、词形和邻词，用同样的训练数据拟合。",
    "how_relate": "官方宏平均 F1 对各关系取平均，两个方向合计，不计 Other，与 SemEval-2010 任务 8 相同。"
    "区间是 95 % 自助法区间（有放回抽取各行 1,000 次）；与基线的差距按同样的行成对抽取。"
    "基线是两个实体及其间各词的 TF-IDF 加逻辑回归，用同样的训练数据拟合。",
    "official_f1": "官方宏平均 F1",
}
