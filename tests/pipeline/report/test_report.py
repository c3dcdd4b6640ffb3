"""The report shows the numbers of its inputs.

Missing or malformed files and unusual names do not break it.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.report import write_report
from pipeline.report.render import markdown
from pipeline.report.tables import count, percent, score
from tests.support.report_inputs import put

ARMS = ("multitask", "deep_prompt", "fine_tune", "head_only")
TASKS = ("ner", "qa", "srl")
NER = "token_classification"
SCORES = {  # head_only was not run on qa, and nothing on srl.
    ("multitask", "ner"): 84.06,
    ("deep_prompt", "ner"): 81.5,
    ("fine_tune", "ner"): 88.04,
    ("head_only", "ner"): 51.2,
    ("multitask", "qa"): 74.31,
    ("deep_prompt", "qa"): 65.0,
    ("fine_tune", "qa"): 72.2,
}
ODD_LABEL = "<script>a|b</script> $x$ _y_"


class Page(HTMLParser):
    """The tags of an HTML page with their attributes, and each table as rows of text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.tables[-1][-1][-1] += data


def tsv(path: Path, *rows: tuple[object, ...]) -> None:
    put(path, "".join("\t".join(map(str, row)) + "\n" for row in rows))


def put_run(root: Path, arm: str, task: str, f1: float) -> None:
    results, run = root / "results" / arm / task, root / "runs" / arm / task
    test = (
        {"f1": f1, "HasAns_f1": f1 - 3, "NoAns_f1": None}
        if task == "qa"
        else {"f1": f1, "precision": f1 + 1, "recall": f1 - 1}
    )
    trained = 22_700_000 if arm == "fine_tune" else 141_312
    metrics = {
        "primary": "f1",
        "task": "span_extraction" if task == "qa" else NER,
        "test": test,
        "validation": {"f1": f1 + 1},
        "rows": {"test": 3453},
    }
    put(
        results / "metrics.json",
        metrics | {"parameters": {"trained": trained, "backbone": 22_700_000}},
    )
    if task == "ner":
        header = ("label", "precision", "recall", "f1", "support")
        tsv(
            results / "labels.tsv",
            header,
            ("NA", 1, 1, 47.5, 10),
            (ODD_LABEL, 1, 1, f1 - 7, 1234),
            ("LOC", 1, 1, "", 5),
        )
    tsv(
        run / "train.tsv",
        ("step", "loss", "gradient_norm"),
        *((step, 3 / step, "oops") for step in range(1, 50)),
    )
    tsv(run / "validation.tsv", ("step", "score"), (20, f1 - 5), (40, f1 + 1))
    put(
        run / "run.json",
        {
            "steps": 49,
            "tokens_seen": 1234,
            "best_step": 40,
            "seed": 7,
            "learning_rates": {"prompt": 0.05},
            "ok": True,
        },
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for (arm, task), f1 in SCORES.items():
        put_run(tmp_path, arm, task, f1)
    pretrain = tmp_path / "runs" / "pretrain" / "base"
    tsv(
        pretrain / "train.tsv",
        ("step", "loss", "loss_ner", "loss_qa"),
        (1, 3, 3, ""),
        (2, 2, "", 2),
        (3, 1.5, 1, 2),
    )
    tsv(pretrain / "validation.tsv", ("step", "score", "score_ner", "score_qa"), (3, 50, 60, 40))
    consumed = {
        "ner": {"micro_batches": 2, "rows": 30, "tokens": 250, "loss_tokens": 900},
        "qa": {"micro_batches": 4, "rows": 10, "tokens": 750, "loss_tokens": 100},
    }
    put(
        pretrain / "run.json",
        {"tokens_seen": 777, "steps": 3, "seed": 0, "consumed_by_corpus": consumed},
    )
    corpora = {
        "ner": {"rows": 1000, "rate": 349525, "share": 0.3333, "epochs": 1.2, "dropped": 5},
        "qa": {"rows": 3000, "share": 0.6667},
    }
    leak = {
        "train": "squad",
        "held_out": "qa",
        "split": "test",
        "rows": 12,
        "equal": 10,
        "contained": 2,
        "train_rows": 9,
        "examples": ["Who <is> | it?"],
    }
    put(
        tmp_path / "mixtures" / "base.json",
        {
            "corpora": corpora,
            "temperature": 2.0,
            "cap": 100000,
            "leaks": [leak],
            "unit": 1048576,
            "on_leak": "drop",
            "warnings": ["qa is barely seen"],
        },
    )
    return tmp_path


def write(
    root: Path,
    output: str = "out",
    tasks: tuple[str, ...] = TASKS,
    repeated: list[tuple[str, str, int]] | None = None,
    planned: dict[str, tuple[str, ...]] | None = None,
) -> tuple[str, str]:
    read = [root / name for name in ("results", "predictions", "runs")]
    write_report(
        *read,
        sorted((root / "mixtures").glob("*.json")),
        tasks,
        dict.fromkeys(ARMS, tasks) if planned is None else planned,
        root / output,
        repeated=repeated or (),
    )
    return tuple(
        (root / output / f"report.{kind}").read_bytes().decode() for kind in ("html", "md")
    )  # type: ignore[return-value]


def rows_of(text: str, caption: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by first cell, without the notes in brackets."""
    lines = text.split(f"{caption}:\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    cells = [re.split(r" (?<!\\)\| ", line.strip("| ") + " ") for line in lines]
    return {
        row[0].split(" (")[0].strip(): [cell.split(" (")[0].strip() for cell in row[1:]]
        for row in cells
    }


def test_the_comparison_has_the_numbers_of_the_inputs_and_the_best_in_bold(root: Path) -> None:
    html, text = write(root)
    rows = rows_of(text, "Test scores by arm and task")
    assert rows["multitask"] == ["84.1", "**74.3**", "—", "141,312", "49", "1,234", "7"]
    assert rows["fine_tune"] == ["**88.0**", "72.2", "—", "22,700,000", "49", "1,234", "7"]
    assert rows["head_only"] == ["51.2", "—", "—", "141,312", "49", "1,234", "7"]
    assert re.findall(r"<strong>(.*?)</strong>", html) == ["74.3", "88.0"]
    comparison = Page(html).tables[0]
    assert [row[0].split()[0] for row in comparison] == ["arm", *ARMS]
    assert comparison[1][1].split() == ["84.1", "validation", "85.1"]
    assert comparison[1][4].split() == ["141,312", "0.62", "%"]


def put_counts(root: Path, arm: str, hits: list[float], task: str = "ner") -> None:
    """Write the counts of an accuracy, and its value in metrics.json."""
    folder = root / "predictions" / arm / task
    put(folder / "formulas.json", {"accuracy": [["right", "total"]]})
    units = [f"test/{number}" for number in range(len(hits))]
    pd.DataFrame({"unit": units, "right": hits, "total": 1.0}).to_parquet(folder / "counts.parquet")
    value = 100.0 * sum(hits) / max(len(hits), 1)
    put(
        root / "results" / arm / task / "metrics.json",
        {"primary": "accuracy", "task": NER, "test": {"accuracy": value}},
    )


def test_intervals_and_significance_of_differences(root: Path) -> None:
    hits = [float(number % 3 > 0) for number in range(300)]  # 66.7
    put_counts(root, "multitask", hits)
    put_counts(
        root, "deep_prompt", [hit * (number % 5 > 0) for number, hit in enumerate(hits)]
    )  # 53.3: right only on examples where multitask is right
    put_counts(root, "fine_tune", hits[1:] + hits[:1])  # as often right, but on other examples
    put_counts(root, "head_only", hits[:100])  # tested on fewer examples
    _, text = write(root, tasks=("ner",))
    cells = [
        line.strip("| ").split(" | ")
        for line in text.split("Differences to")[1].splitlines()
        if line.startswith("| ner |")
    ]
    assert [cell[1:3] for cell in cells[:3]] == [
        ["deep_prompt", "−13.3"],
        ["fine_tune", "+0.0"],
        ["head_only", "—"],
    ]
    assert [cell[-1] for cell in cells[:3]] == ["multitask is better", "not significant", "—"]
    assert re.search(r"\*\*66\.7\*\* \(61\.\d–72\.\d\)", text)
    assert text.count("**66.7**") == 2, "multitask and fine_tune do not differ significantly"
    assert "equal to fine_tune (not significant)" in text


def test_repeats_are_shown_as_a_mean_with_the_scores_of_all_seeds(root: Path) -> None:
    hits = [float(number % 3 > 0) for number in range(300)]  # 66.7
    worse = [hit * (number % 5 > 0) for number, hit in enumerate(hits)]  # 53.3
    seeds_of = {
        "multitask": (hits, hits, worse),
        "deep_prompt": (worse, worse, worse),
        "fine_tune": (hits, hits, hits),
    }
    put_counts(root, "head_only", worse[:9])
    for arm, seeds in seeds_of.items():
        put_counts(root, arm, seeds[0])
        for seed in (8, 9):
            put_counts(root, f"repeat/{seed}/{arm}", seeds[seed - 7])
    repeated = [
        (arm, "ner", seed) for arm in ARMS[:3] for seed in (8, 9, 10)
    ]  # seed 10 was not run
    _, text = write(root, tasks=("ner",), repeated=repeated)
    assert re.search(
        r"\| multitask \(.*?\) \| \*\*62\.2\*\* \(4\d\.\d–8\d\.\d · of 66\.7, 66\.7, 53\.3\) \|",
        text,
    )
    assert re.search(r"\*\*66\.7\*\* \(61\.\d–7\d\.\d · of 66\.7, 66\.7, 66\.7\)", text)
    differences = text.split("Differences to")[1].split("## ")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in differences if line.startswith("| ner |")]
    assert [cell[1:3] for cell in cells] == [
        ["deep_prompt", "−8.9"],
        ["fine_tune", "+4.4"],
        ["head_only", "—"],
    ]
    assert [cell[-1] for cell in cells] == ["not significant", "not significant", "—"], (
        "one of three seeds scored like deep_prompt"
    )
    assert rows_of(text, "Test scores by arm and task")["multitask"][-1] == "7, 8, 9"


def test_an_arm_without_repeats_is_compared_with_the_first_seed(root: Path) -> None:
    hits = [float(number % 3 > 0) for number in range(300)]
    for arm in ARMS:
        put_counts(
            root,
            arm,
            hits
            if arm == "multitask"
            else [hit * (number % 5 > 0) for number, hit in enumerate(hits)],
        )
    put_counts(root, "repeat/8/multitask", hits[::-1])
    _, text = write(root, tasks=("ner",), repeated=[("multitask", "ner", 8)])
    assert "| multitask is better (first seed of multitask only) |" in text


def test_a_repeat_with_other_test_examples_is_refused(root: Path) -> None:
    for arm in ARMS:
        put_counts(root, arm, [1.0, 0.0] * 50)
    put_counts(root, "repeat/8/multitask", [1.0, 0.0] * 40)
    put_counts(root, "repeat/8/fine_tune", [1.0, 0.0] * 50)
    repeated = [(arm, "ner", 8) for arm in ("multitask", "fine_tune", "deep_prompt")]
    with pytest.raises(UserError) as caught:
        write(root, tasks=("ner",), repeated=repeated)
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"{root}/results/repeat/8/multitask/ner/metrics.json: not comparable with "
        f"{root}/results/multitask/ner"
    )


def test_a_single_row_or_all_right_has_no_interval(root: Path) -> None:
    put_counts(root, "multitask", [1.0] * 50)
    put_counts(root, "deep_prompt", [1.0])
    put_counts(root, "fine_tune", [])
    put_counts(root, "head_only", [0.0] * 9)
    _, text = write(root, tasks=("ner",))
    assert "| multitask (initialized from the shared prompt) | **100.0** |" in text
    assert "not significant" not in text


def test_calibration_confusion_and_mistakes(root: Path) -> None:
    folder = root / "predictions" / "multitask" / "ner"
    folder.mkdir(parents=True)
    confidence_rows = {
        "kind": "spans",
        "raw": [0.95, 0.95, 0.5],
        "calibrated": [0.75, 0.75, 0.5],
        "right": [True, False, True],
    }
    pd.DataFrame(confidence_rows).to_parquet(folder / "confidences.parquet")
    claims = pd.DataFrame(
        {
            "id": ["a", "b", "b", "c"],
            "text": ["Ada | Bo"] * 4,
            "gold_label": ["PER", "LOC", "PER", "PER"],
            "predicted_label": ["PER", "PER", "PER", "(none)"],
            "gold": ["PER: Ada", "LOC: Ada", "PER: Ada", "PER: Bo"],
            "predicted": ["PER: Ada"] * 3 + [""],
            "right": [True, False, True, False],
            "gold_spans": [[[0, 3]], [[0, 3]], [[0, 3]], [[6, 8]]],
            "predicted_spans": [[[0, 3]], [[0, 3]], [[0, 3]], []],
            "calibrated": [0.75, 0.75, 0.5, None],
        }
    )
    claims.to_parquet(folder / "claims.parquet")
    html, text = write(root)
    assert rows_of(text, "Calibration, test")["multitask"] == [
        "spans",
        "3",
        "66.7 %",
        "66.7 %",
        "0.467",
        "0.333",
        "0.385",
        "0.292",
        "0.444",
    ]
    assert (
        rows_of(text, "Confusion of multitask, test")
        == {"gold": ["PER", r"\(none\)"], "LOC": ["1", "0"], "PER": ["**2**", "1"]}
        or "| PER | **2** | 1 |" in text
    )
    assert r"| 0.75 | b | LOC: Ada | PER: Ada | Ada \| Bo |" in text
    assert text.count("| c |") == 0, "a missed entity has no confidence"
    assert len(re.findall(r"<mark [^>]*><mark [^>]*>Ada</mark></mark>", html)) == 1
    assert all(f">{label}</span>" in html for label in ("predicted", "gold"))
    assert html.count("<svg") == 9 + 2
    assert "Measures of confidence" not in text
    measures = pd.DataFrame(
        {
            "raw": [0.9, 0.9],
            "calibrated": 0.7,
            "margin": [0.9, 0.6],
            "agreement": [1.0, 0.0],
            "right": [True, False],
        }
    )
    measures.to_parquet(folder / "measures.parquet")
    html, text = write(root)
    lines = [
        line.strip("| ").split(" | ")[1:]
        for line in text.split("Measures of confidence compared")[1].splitlines()[4:8]
    ]
    assert lines == [
        ["raw", "2", "50.0 %", "90.0 %", "0.400", "0.410", "0.500"],
        ["calibrated", "2", "50.0 %", "70.0 %", "0.200", "0.290", "0.500"],
        ["margin", "2", "50.0 %", "75.0 %", "0.350", "0.185", "0.250"],
        ["agreement", "2", "50.0 %", "50.0 %", "0.000", "0.000", "0.250"],
    ]
    assert html.count("<svg") == 9 + 3
    assert write(root, "again") == (html, text)
    for name, frame in (
        ("confidences", pd.DataFrame(confidence_rows)),
        ("claims", claims),
        ("measures", measures),
    ):
        frame[:0].to_parquet(folder / f"{name}.parquet")
    assert "confidence and mistakes" not in write(root)[1]


def test_counts_of_another_run_are_refused(root: Path) -> None:
    put_counts(root, "multitask", [1.0, 0.0])
    put(
        root / "results" / "multitask" / "ner" / "metrics.json",
        {"primary": "accuracy", "task": NER, "test": {"accuracy": 51.0}},
    )
    with pytest.raises(
        UserError, match=r"counts.parquet: add up to accuracy 50.00, but .*metrics.json has 51.00"
    ):
        write(root, tasks=("ner",))


def test_published_scores_are_below_the_arms(root: Path) -> None:
    published = {
        "They, table 3": {"fine_tune": {"ner": 99.94, "qa": 50.0}},
        "I": {"deep_prompt": {"srl": 1.0}},
    }
    mixtures = sorted((root / "mixtures").glob("*.json"))
    write_report(
        root / "results",
        root / "predictions",
        root / "runs",
        mixtures,
        TASKS,
        dict.fromkeys(ARMS, TASKS),
        root / "out",
        published,
    )
    comparison = Page((root / "out/report.html").read_text(encoding="utf-8")).tables[0]
    found = [[" ".join(cell.split()) for cell in row] for row in comparison]
    assert [row[0].split()[0] for row in found[1:5]] == list(ARMS)
    assert found[5:] == [
        ["fine_tune They, table 3", "99.9", "50.0", *"—————"],
        ["deep_prompt I", "—", "—", "1.0", *"————"],
    ]
    assert "best with 88.0 F1" in (root / "out/report.md").read_text(
        encoding="utf-8"
    )  # a published score is not an arm of this project


def test_scores_equal_after_rounding_are_both_best(root: Path) -> None:
    put_run(root, "multitask", "ner", 88.01)
    html, text = write(root)
    assert html.count("<strong>88.0</strong>") == 2
    assert (
        "multitask and fine_tune are best with 88.0 F1; multitask reaches 88.0, equal to fine_tune"
        in text
    )


def test_the_summary_agrees_with_the_numbers(root: Path) -> None:
    _, text = write(root)
    assert (
        "7 of 12 planned runs (4 arms, 3 tasks) are complete. Best on 2 tasks with scores of "
        "several arms: multitask (1) and fine_tune (1)." in text
    )
    assert (
        "Averaged over 2 tasks, multitask is 0.9 points below fine_tune (by task: −3.9 to +2.1)."
        in text
    )
    assert (
        "fine_tune is best with 88.0 F1; multitask reaches 84.1, 3.9 points below fine_tune and "
        "2.6 points above deep_prompt." in text
    )
    assert "141,312 parameters, 0.62 % of the backbone's" in text
    assert "The shared prompt was trained on 777 tokens (base), once for all tasks" in text
    assert "deep-prompt show prints the seconds" in text


def test_a_single_score_is_not_called_the_best(root: Path) -> None:
    put_run(root, "fine_tune", "srl", 61.5)
    _, text = write(root)
    assert text.split("## srl\n\n")[1].startswith(
        "fine_tune has 61.5 F1; no other arm has a score."
    )


def test_runs_that_are_not_planned_are_neither_missing_nor_shown(root: Path) -> None:
    """Such a run may have a score of earlier params."""
    planned = {"multitask": TASKS, "deep_prompt": ("ner",), "fine_tune": (), "head_only": ("qa",)}
    html, text = write(root, planned=planned)
    assert "3 of 5 planned runs (3 arms, 3 tasks) are complete." in text
    assert "fine_tune" not in html + text
    assert [*rows_of(text, "Test metrics")] == ["arm", "---", "multitask", "deep_prompt"]
    qa, srl = (text.split(f"## {task}\n")[1] for task in ("qa", "srl"))
    assert [*rows_of(qa, "Test metrics")] == ["arm", "---", "multitask", "head_only"]
    assert rows_of(qa, "Test metrics")["head_only"] == ["—"] * 3, "planned, but not run"
    assert srl.startswith("\nNot evaluated yet.")
    cells = rows_of(text, "Test scores by arm and task")
    assert cells["head_only"][:3] == ["—", "—", "—"]
    assert cells["deep_prompt"][:3] == ["81.5", "—", "—"]


def test_secondary_metrics_labels_mixture_and_leaks_are_shown(root: Path) -> None:
    html, text = write(root)
    assert "| arm | F1 | precision | recall |" in text
    assert "| multitask | 74.3 | 71.3 | — |" in text
    assert "| NA | 10 | 47.5 | 47.5 | 47.5 | 47.5 |" in text
    assert "| LOC | 5 | — | — | — | — |" in text
    assert "| ner | 1,000 | 25.0 % | 33.3 % | 349,525 | 1.2 | — |" in text
    assert (
        rows_of(text, "Shares of the training data").items()
        >= {
            "ner": ["33.3 %", "33.3 %", "75.0 %", "25.0 %", "90.0 %"],
            "qa": ["66.7 %", "66.7 %", "25.0 %", "75.0 %", "10.0 %"],
        }.items()
    )
    assert "5 leaking training rows were dropped. Warning: qa is barely seen." in text
    assert "base: shares intended and realized" in html
    assert r"| squad | qa | test | 12 | 10 | 2 | 9 | Who &lt;is&gt; \| it? |" in text


def test_the_report_names_a_metric_by_character(root: Path) -> None:
    html, text = write(root, tasks=("qa",))
    assert "by character" not in html + text
    for arm in ("multitask", "deep_prompt", "fine_tune"):
        scores = {"mlqa_f1": 71.5, "mlqa_exact_match": 60.0}
        values = {"primary": "mlqa_f1", "task": "span_extraction", "test": scores}
        put(root / "results" / arm / "qa" / "metrics.json", values)
    html, text = write(root, tasks=("qa",))
    assert "F1 by character, MLQA" in text
    assert "exact, MLQA" in text
    assert "Lewis et al. 2020" in html


def test_the_report_has_the_score_of_no_answer_to_all_questions(root: Path) -> None:
    sentence = (
        "A model that answers no question has 26.5 F1; compare also the answerable questions."
    )
    assert "answers no question" not in write(root)[1], "the metrics do not have the numbers"
    path = root / "results/multitask/qa/metrics.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["test"] |= {"total": 200, "HasAns_total": 147, "NoAns_total": 53}
    put(path, values)
    assert write(root)[1].count(sentence) == 1


def test_the_same_inputs_give_the_same_bytes(root: Path) -> None:
    assert write(root, "one") == write(root, "two")


def test_the_page_is_self_contained_and_accessible(root: Path) -> None:
    html, _ = write(root)
    page = Page(html)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "object"} & set(names)
    assert not re.search(r"https?://|url\((?!#)|@import", html)
    links = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("href", "src", "xlink:href") and value
    ]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert len(ids) == len(set(ids))
    assert names.count("svg") == names.count("figure") == names.count("desc") == 9
    assert all(attributes.get("role") == "img" for tag, attributes in page.tags if tag == "svg")
    assert all(
        attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th"
    )


def test_unusual_labels_are_escaped_in_html_and_markdown(root: Path) -> None:
    html, text = write(root)
    assert "<script>" not in html
    assert "<script>" not in text
    assert any(row[0] == ODD_LABEL for table in Page(html).tables for row in table)
    assert r"| &lt;script&gt;a\|b&lt;/script&gt; \$x\$ \_y\_ | 1,234 | 77.1 |" in text


def test_markdown_cells_are_one_line_and_plain_names_are_unchanged() -> None:
    assert markdown("world_ner ARGM-TMP") == "world_ner ARGM-TMP"
    assert markdown("a\n| `b` *c*") == r"a \| \`b\` \*c\*"


def test_a_report_without_inputs_is_written(tmp_path: Path) -> None:
    html, text = write(tmp_path)
    assert "No arm has been evaluated yet." in html
    assert rows_of(text, "Test scores by arm and task")["multitask"] == ["—"] * 7


@pytest.mark.parametrize(
    "file",
    ["results/multitask/ner/metrics.json", "runs/multitask/ner/run.json", "mixtures/base.json"],
)
@pytest.mark.parametrize("content", ['{"primary": ', "[]", b"\xff"])
def test_an_error_names_the_malformed_json_file(
    root: Path, file: str, content: str | bytes
) -> None:
    (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(str(root / file))):
        write(root)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "results/multitask/ner/metrics.json",
            '{"primary": "f2", "test": {"f1": 1}}',
            r"primary: found 'f2'.*\(f1\)",
        ),
        (
            "results/multitask/ner/metrics.json",
            '{"primary": "f1", "task": "entailment", "test": {"f1": 1}}',
            r"task: found 'entailment', expected a kind of task \(dialogue_state_generation, ",
        ),
        (
            "results/multitask/ner/metrics.json",
            '{"primary": "f1", "test": {"f1": "1"}}',
            "test: f1: found '1', expected a number",
        ),
        (
            "results/multitask/ner/metrics.json",
            '{"primary": "em", "task": "span_extraction", "test": {"em": 1}}',
            "different primary metrics",
        ),
        ("results/multitask/ner/labels.tsv", "label\tf1\n", "no column support"),
        (
            "runs/multitask/ner/train.tsv",
            "step\tloss\n1\t2\n2\tmany\n",
            "train.tsv:3: loss: found 'many'",
        ),
        ("runs/multitask/ner/validation.tsv", "", "not a table"),
        ("mixtures/base.json", '{"corpora": {"a": 1}}', "a: found 1, expected a dict"),
        ("mixtures/base.json", '{"leaks": ["a"]}', "leaks: found 'a'"),
    ],
)
def test_an_error_states_the_problem_of_a_file(
    root: Path, file: str, content: str, message: str
) -> None:
    put(root / file, content)
    with pytest.raises(UserError, match=message) as caught:
        write(root)
    assert str(root / file) in str(caught.value)


def test_all_malformed_files_are_reported_together(root: Path) -> None:
    files = [root / "results" / arm / "ner" / "metrics.json" for arm in ARMS[:2]]
    for file in files:
        put(file, "{")
    with pytest.raises(UserError) as caught:
        write(root)
    assert len(caught.value.problems) == 2
    assert all(str(file) in str(caught.value) for file in files)


def test_diverged_runs_and_unusual_names_are_plotted(root: Path) -> None:
    tsv(
        root / "runs" / "multitask" / "ner" / "train.tsv",
        ("step", "loss"),
        (1, "nan"),
        (2, "inf"),
        (3, 0),
    )
    tsv(root / "runs" / "multitask" / "qa" / "train.tsv", ("step", "loss"))
    put_run(root, "multitask", "_任务 $1$", 5.0)
    html, _ = write(root, tasks=("ner", "qa", "_任务 $1$"))
    assert html.count("<svg") == 11


def test_numbers_are_formatted_as_text() -> None:
    assert [score(71.25), score(None), score(float("nan"))] == ["71.2", "—", "—"]
    assert [count(141312), count(12.34), count(7), count(None)] == ["141,312", "12.3", "7", "—"]
    assert [percent(0.00622), percent(1.0), percent(None)] == ["0.62 %", "100.0 %", "—"]
