"""Every word of the report in English and Chinese, and how numbers are written in both.

`speaker(language)` gives the function that says a key; a test keeps both tables at the same keys and the same
blanks. A third language is a third table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from penjing.errors import SpecError, nearest

Say = Callable[..., str]

ENGLISH: dict[str, str] = {
    # scores
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "subset_accuracy": "all labels right",
    "ece": "calibration error (ECE)",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "test": "test",
    "valid": "validation",
    "train": "training",
    # the verdict
    "model_right": "The tuned model answers {score} of the {split} rows right",
    "model_score": "The tuned model reaches {score} {name} on the {split} rows",
    "cheap_one": "; the cheap baseline {score}",
    "worth": ": the large model is worth {points} points {interval}.",
    "worse": ": the baseline is {points} points {interval} better, and costs almost nothing.",
    "chance": ": the difference of {points} points {interval} may be chance.",
    "stop": ".",
    "worse_advice": "Serve the baseline, or give the model more rows, more steps or another base "
    "before it is served.",
    "chance_advice": "Nothing here shows that the large model is worth its cost. More test rows "
    "would narrow the doubt.",
    "untested": "The difference to the baseline was not tested row by row, so take it as a rough one.",
    "on_valid": "There was no test set. The validation rows also chose the best step: expect a "
    "little less on new rows.",
    "gained": "Before tuning it was {score}.",
    "under_forecast": "Training took {time}; the forecast was {forecast}.",
    "claims_high": "When it claims to be sure it is too sure, by {points} points on average.",
    "claims_low": "It is right more often than it claims, by {points} points on average.",
    "claims_well": "Its confidence can be taken at its word: off by {points} points on average.",
    "running": "This run has not finished",
    "running_at": "This run has not finished: step {step}, loss {loss}.",
    "running_empty": "This run has not finished, and has not made a step yet.",
    "running_best": "Best on the validation rows so far: {score} {name}, at step {step}.",
    "resume": "It is going on, or was stopped from outside. To go on from where it was saved:",
    "died": "This run died",
    "died_at": "This run died after step {step}.",
    "died_early": "This run died before its first step.",
    "done": "Finished",
    "unscored": "This run finished without scores.",
    "damaged": "{file} could not be read as a whole ({n} places); what could be read is shown.",
    # tiles
    "tuned": "tuned",
    "before": "before tuning",
    "baseline": "cheap baseline",
    "time": "training time",
    "memory": "peak memory",
    "steps_taken": "{n} steps",
    "rows_n": "{n} rows",
    "fitted_in": "fitted in {time}",
    "forecast": "forecast {value}",
    "points_gain": "{points} points by tuning",
    "trained_of": "{n} of {total} parameters trained",
    # sections
    "scores": "Scores",
    "learning": "Learning",
    "errors": "Where it errs",
    "honesty": "How honest its confidence is",
    "data": "Data",
    "cost": "Cost",
    "repeat": "Do it again",
    "notes": "Notes",
    "error": "What went wrong",
    "about_run": "About this run",
    # figures and tables
    "score": "score",
    "interval": "95 % interval",
    "scores_figure": "{name} before tuning, of the cheap baseline and after tuning, on the {split} rows",
    "loss": "loss",
    "loss_about": "Training loss from {first} at step {from_step} to {last} at step {to_step}; a "
    "lower one is better.",
    "loss_smooth": "training, smoothed",
    "loss_raw": "each step",
    "valid_loss": "validation",
    "parts": "parts of the loss",
    "score_figure": "{name} on the validation rows",
    "score_about": "Best {best} at step {step}. Whiskers are 95 % intervals.",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "step": "step",
    "more_curves": "Learning rate, gradient norm, parts of the loss",
    "curve_about": "From {low} to {high}.",
    "class_figure": "F1 of the {n} weakest classes",
    "class_figure_all": "F1 of every class",
    "class_about": "Weakest: {label} with {score}.",
    "all_classes": "All {n} classes",
    "label": "label",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "support": "rows",
    "heat_figure": "Which class was taken for which",
    "heat_figure_part": "Which class was taken for which: the {n} with the most errors",
    "heat_about": "Rows are the truth, columns the answers. The pairs most often confused are listed "
    "beside it.",
    "truth": "truth",
    "answer": "answer",
    "pairs": "Most often confused",
    "pair": "{truth} taken for {answer}",
    "of_its_rows": "{count} of {total} rows",
    "no_errors": "No row was answered wrongly.",
    "worst": "Surest mistakes",
    "worst_lead": "Rows where the model was surest and wrong. At times it is the given label that errs.",
    "given": "given",
    "predicted": "model",
    "likely": "more likely",
    "sure": "{score} sure",
    "nothing": "none",
    "reliability_figure": "Share right against claimed confidence",
    "reliability_about": "A dot on the dashed line keeps its word; below it claims too much. Dots "
    "are as large as their rows.",
    "confidence": "claimed confidence",
    "share_right": "share right",
    "source": "source",
    "rows": "rows",
    "labels": "labels",
    "labels_figure": "Rows of each label",
    "labels_figure_part": "Rows of each label: the {n} most frequent of {total}",
    "labels_about": "From {least} to {most} rows a label.",
    "lengths": "lengths",
    "lengths_figure": "Length of the rows",
    "lengths_about": "Number of rows by length.",
    "tokens": "tokens",
    "duplicates": "duplicates",
    "leaks": "leaks",
    "suspects": "Labels to look at again",
    "suspects_lead": "Rows whose given label their neighbours and the model do not believe.",
    "unlabelled": "unlabelled",
    "seconds": "time",
    "tokens_per_s": "tokens per second",
    "rows_per_s": "rows per second",
    "peak_mib": "peak memory",
    "peak_share": "share of the machine's matrix peak",
    "steps": "steps",
    "stopped": "stopped because",
    "measured": "measured",
    "forecast_name": "forecast",
    "asked": "What was asked: spec.yaml",
    "repeat_lead": "Every default is written out in the spec beside this report. This repeats the run:",
    "first_command": "It was started by",
    "base": "base",
    "task": "task",
    "method": "method",
    "techniques": "techniques",
    "device": "device",
    "precision_name": "precision",
    "threads": "threads",
    "seed": "seed",
    "started": "started",
    "parent": "parent",
    "versions": "versions",
    "parameters": "parameters",
    "how": "How these numbers are made",
    "how_text": "Intervals are 95 % bootstrap intervals (rows drawn with replacement 1,000 times); the difference to the "
    "baseline is drawn in pairs, on the same rows. Macro F1 is the mean over the classes that appear. ECE uses 15 bins "
    "of equal width. The baseline is TF-IDF with logistic regression, fitted on the same training rows.",
    "private": "This page quotes rows of the data: share it with those who may read them.",
    # units
    "hours": "{h} h {m} min",
    "minutes": "{m} min {s} s",
    "only_seconds": "{s} s",
}

CHINESE: dict[str, str] = {
    "accuracy": "准确率",
    "macro_f1": "宏平均 F1",
    "micro_f1": "微平均 F1",
    "subset_accuracy": "标签全对",
    "ece": "校准误差（ECE）",
    "nll": "负对数似然",
    "brier": "Brier 分数",
    "test": "测试",
    "valid": "验证",
    "train": "训练",
    "model_right": "调优后的模型答对了 {score} 的{split}数据",
    "model_score": "调优后的模型在{split}数据上的{name}为 {score}",
    "cheap_one": "；廉价基线为 {score}",
    "worth": "：大模型值 {points} 个百分点 {interval}。",
    "worse": "：基线反而高 {points} 个百分点 {interval}，而且几乎不花成本。",
    "chance": "：相差 {points} 个百分点 {interval}，可能只是偶然。",
    "stop": "。",
    "worse_advice": "建议直接用基线；或先增加数据、步数，或换一个底座，再考虑上线大模型。",
    "chance_advice": "这里看不出大模型值得它的成本。测试数据再多一些，结论才会更确定。",
    "untested": "与基线的差距没有逐行检验，只能作粗略参考。",
    "on_valid": "没有测试集。最佳步数也是用这些验证数据选的：在新数据上会略低一些。",
    "gained": "调优之前为 {score}。",
    "under_forecast": "训练用时 {time}；事先预计 {forecast}。",
    "claims_high": "模型自称有把握时偏于自信，平均高出 {points} 个百分点。",
    "claims_low": "模型实际答对的比它自称的多，平均多 {points} 个百分点。",
    "claims_well": "模型的置信度基本可信：平均只差 {points} 个百分点。",
    "running": "本次运行尚未结束",
    "running_at": "本次运行尚未结束：第 {step} 步，损失 {loss}。",
    "running_empty": "本次运行尚未结束，还没有走完第一步。",
    "running_best": "目前在验证数据上最好的{name}为 {score}，在第 {step} 步。",
    "resume": "它还在进行，或被外部中断。从上次保存处继续：",
    "died": "本次运行中途失败",
    "died_at": "本次运行在第 {step} 步之后失败。",
    "died_early": "本次运行在第一步之前就失败了。",
    "done": "已完成",
    "unscored": "本次运行已结束，但没有评分。",
    "damaged": "{file} 不能完整读取（{n} 处）；能读的部分已列出。",
    "tuned": "调优之后",
    "before": "调优之前",
    "baseline": "廉价基线",
    "time": "训练用时",
    "memory": "内存峰值",
    "steps_taken": "{n} 步",
    "rows_n": "{n} 行",
    "fitted_in": "拟合用时 {time}",
    "forecast": "预计 {value}",
    "points_gain": "调优带来 {points} 个百分点",
    "trained_of": "训练了 {total} 个参数中的 {n} 个",
    "scores": "评分",
    "learning": "学习过程",
    "errors": "错在哪里",
    "honesty": "置信度是否可信",
    "data": "数据",
    "cost": "成本",
    "repeat": "重做一遍",
    "notes": "说明",
    "error": "出了什么错",
    "about_run": "关于本次运行",
    "score": "分数",
    "interval": "95 % 区间",
    "scores_figure": "{split}数据上的{name}：调优之前、廉价基线、调优之后",
    "loss": "损失",
    "loss_about": "训练损失从第 {from_step} 步的 {first} 到第 {to_step} 步的 {last}；越低越好。",
    "loss_smooth": "训练（平滑）",
    "loss_raw": "每一步",
    "valid_loss": "验证",
    "parts": "损失的各部分",
    "score_figure": "验证数据上的{name}",
    "score_about": "最好为 {best}，在第 {step} 步。竖线是 95 % 区间。",
    "lr": "学习率",
    "grad_norm": "梯度范数",
    "step": "步",
    "more_curves": "学习率、梯度范数、损失的各部分",
    "curve_about": "从 {low} 到 {high}。",
    "class_figure": "F1 最低的 {n} 个类别",
    "class_figure_all": "每个类别的 F1",
    "class_about": "最低的是 {label}：{score}。",
    "all_classes": "全部 {n} 个类别",
    "label": "标签",
    "precision": "精确率",
    "recall": "召回率",
    "f1": "F1",
    "support": "行数",
    "heat_figure": "哪一类被认成了哪一类",
    "heat_figure_part": "哪一类被认成了哪一类：错误最多的 {n} 类",
    "heat_about": "行是真实标签，列是模型的回答。最常混淆的类别另有列表。",
    "truth": "真实",
    "answer": "回答",
    "pairs": "最常混淆",
    "pair": "{truth} 被认成 {answer}",
    "of_its_rows": "{total} 行中的 {count} 行",
    "no_errors": "没有一行答错。",
    "worst": "最自信的错误",
    "worst_lead": "模型最有把握却答错的行。有时错的是原来的标签。",
    "given": "原标签",
    "predicted": "模型",
    "likely": "更像",
    "sure": "把握 {score}",
    "nothing": "无",
    "reliability_figure": "自称的置信度与实际答对的比例",
    "reliability_about": "圆点落在虚线上就是言行一致；在虚线之下就是过于自信。圆点大小表示行数。",
    "confidence": "自称的置信度",
    "share_right": "实际答对",
    "source": "来源",
    "rows": "行数",
    "labels": "标签",
    "labels_figure": "每个标签的行数",
    "labels_figure_part": "每个标签的行数：{total} 个中最多的 {n} 个",
    "labels_about": "每个标签 {least} 到 {most} 行。",
    "lengths": "长度",
    "lengths_figure": "每行的长度",
    "lengths_about": "各长度的行数。",
    "tokens": "词元",
    "duplicates": "重复",
    "leaks": "泄漏",
    "suspects": "值得复查的标签",
    "suspects_lead": "原标签与相近的行、与模型的判断都不一致的行。",
    "unlabelled": "无标签",
    "seconds": "用时",
    "tokens_per_s": "每秒词元",
    "rows_per_s": "每秒行数",
    "peak_mib": "内存峰值",
    "peak_share": "达到本机矩阵峰值的比例",
    "steps": "步数",
    "stopped": "停止原因",
    "measured": "实测",
    "forecast_name": "预计",
    "asked": "要求的是什么：spec.yaml",
    "repeat_lead": "所有默认值都写在本报告旁边的 spec 里。用下面的命令可以重做：",
    "first_command": "当初的命令",
    "base": "底座",
    "task": "任务",
    "method": "方法",
    "techniques": "技巧",
    "device": "设备",
    "precision_name": "精度",
    "threads": "线程",
    "seed": "随机种子",
    "started": "开始于",
    "parent": "上一代",
    "versions": "版本",
    "parameters": "参数量",
    "how": "这些数字是怎么来的",
    "how_text": "区间是 95 % 自助法区间（有放回抽取各行 1,000 次）；与基线的差距按同样的行成对抽取。宏平均 F1 "
    "只对出现过的类别取平均。ECE 用 15 个等宽区间。基线是 TF-IDF 加逻辑回归，用同样的训练数据拟合。",
    "private": "本页引用了数据原文：只应分享给有权阅读这些数据的人。",
    "hours": "{h} 小时 {m} 分",
    "minutes": "{m} 分 {s} 秒",
    "only_seconds": "{s} 秒",
}

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
IN_PERCENT = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "ece")


def speaker(language: str) -> Say:
    """`say(key, **blanks)`: the words of a key; a key that is not in the table (a user's own score name) says
    itself.

    Raises:
        SpecError: no such language.
    """
    if language not in LANGUAGES:
        raise SpecError(
            f"The report can be written in {', '.join(LANGUAGES)}; `language` is `{language}`."
            f"{nearest(language, LANGUAGES)} Choose one of them."
        )
    table = LANGUAGES[language]
    return lambda key, **blanks: table[key].format(**blanks) if key in table else key


def percent(value: Any) -> str:
    """A share as `93.4 %`; an en dash where it is no finite number."""
    return f"{100 * value:.1f} %" if finite(value) else "–"


def plain(value: Any) -> str:
    """A number short enough to read: `1,234`, `0.0312`, `1.2e-05`."""
    if not finite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return (
        f"{value:.3f}"
        if 0.01 <= abs(value) < 10
        else f"{value:,.1f}"
        if 10 <= abs(value) < 1e6
        else f"{value:.2g}"
    )


def score(name: str, value: Any) -> str:
    """A score as it is usually written: shares in percent, others plain."""
    return percent(value) if name in IN_PERCENT else plain(value)


def span(pair: Any, name: str = "accuracy", *, signed: bool = False) -> str:
    """An interval as `[92.5, 94.2]`, in points where the score is a share; empty where it is none."""
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(finite, pair))):
        return ""
    sign = "+" if signed else ""
    low, high = (f"{100 * v:{sign}.1f}" if name in IN_PERCENT else plain(v) for v in pair)
    return f"[{low}, {high}]".replace("-", "−")


def duration(seconds: Any, say: Say) -> str:
    """`1 h 5 min`, `12 min 3 s`, `8.2 s`."""
    if not finite(seconds):
        return "–"
    if seconds < 60:
        return say("only_seconds", s=f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}")
    whole = round(seconds)
    if whole < 3600:
        return say("minutes", m=whole // 60, s=whole % 60)
    return say("hours", h=f"{whole // 3600:,}", m=whole % 3600 // 60)


def memory(mib: Any) -> str:
    """`812 MiB`, `3.4 GiB`."""
    if not finite(mib):
        return "–"
    return f"{mib:,.0f} MiB" if mib < 1024 else f"{mib / 1024:,.1f} GiB"


def short_count(n: Any) -> str:
    """`22.7 M` for parameters."""
    if not finite(n):
        return "–"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(n) >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f}"


def finite(value: Any) -> bool:
    """Whether this is a number one can write (True and False are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
