"""The recipes' table of speed, from the result files of the benchmarks; run by `make bench` after them.

python tests/benchmarks/speed_table.py recipes/README.md
"""

import json
import re
import sys
from pathlib import Path


RESULTS = Path(__file__).parents[2] / "model_cards" / "results"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def speed_table(folder: Path = RESULTS) -> str:
    """Return one Markdown row for each comparison that has a bar in the `speed_*.json` files of a folder."""
    lines = ["| what | the plain way | ours | ratio | bar |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("speed_*.json")):
        for row in json.loads(path.read_text())["comparisons"]:
            if row["bar"] is None:
                continue
            bar = f"{'≤' if row['at_most'] else '≥'} {row['bar']:g}"
            times = (f"{row[name]:,.1f} {row['unit']}" for name in ("plain", "ours"))
            lines.append(f"| {row['name']} | {' | '.join(times)} | {row['ratio']:.3g} | {bar} |")
    return "\n".join(lines)


def with_table(text: str, table: str) -> str:
    """Return a page with the table between its two marks replaced.

    Raises:
        ValueError: The page lacks the marks.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text(), speed_table()))
