import json

from natix_roadwork.data.row_report import RowReport, row_problem


def _report(num_problems: int) -> RowReport:
    problems = [row_problem(f"train:{n}", "label", n, "wrong", dropped=True) for n in range(num_problems)]
    problems.append(row_problem("train:99", "gps", "[95, 0]", "out of range", dropped=False))
    kept = {"train": {"None": 3, "Roadwork": 4}, "dev": {"None": 1, "Roadwork": 2}}
    return RowReport("somewhere", "parquet", {"train": 10 + num_problems}, kept, {"train": 5, "dev": 2}, problems)


def test_counts() -> None:
    report = _report(7)
    assert (report.num_read, report.num_kept, len(report.dropped)) == (17, 10, 7)


def test_summary_counts_all_and_names_some() -> None:
    text = _report(7).summary(max_examples=2)
    assert "17 rows read, 10 kept, 7 dropped" in text
    assert "train: 7 rows (3 None, 4 Roadwork) in 5 groups" in text
    assert "dropped: 7 by column 'label'" in text
    assert "train:1: '1': wrong" in text
    assert "train:2:" not in text
    assert "... and 5 more" in text
    assert "1 by column 'gps'" in text


def test_json_lists_some_problems_and_counts_all() -> None:
    values = json.loads(json.dumps(_report(7).as_dict(max_problems=3)))
    assert values["problem_counts"] == {"dropped: label": 7, "kept: gps": 1}
    assert (len(values["problems"]), values["problems_not_listed"], values["num_dropped"]) == (3, 5, 7)


def test_long_values_are_shortened() -> None:
    problem = row_problem("train:0", "text", "x" * 5000, "too long", dropped=False)
    assert len(problem.value) < 200
    assert "5000 characters" in problem.value
