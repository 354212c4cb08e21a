"""The simulation recipe: what a member, an ensemble or a model's folder would earn on NATIX's subnet.

`recipes/simulate_rewards.py` calls `run_simulation` and prints `simulation_table`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from natix_roadwork.inference.reward_simulation import (
    ONE_MINER,
    UNCERTAINTY,
    ChallengePool,
    Interval,
    answer_counts,
    class_metrics,
    expected_reward,
)
from natix_roadwork.inference.simulation_arguments import SimulateArguments
from natix_roadwork.inference.simulation_pools import SYNTHETIC, pools_of_model, pools_of_predictions
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text
from natix_roadwork.subnet.challenge import PRESETS


AS_THEY_ARE = (
    "the files speak of the photos as they are; a validator's views differ (regime C least: the photo as a JPEG of quality 75). "
    "Give a model's folder to simulate the regimes"
)
HALTED = "validators have sent no challenges since 2026-05-06; these are what their rules would pay"


def run_simulation(arguments: SimulateArguments) -> RunResult:
    """Simulate, and write `result.json` into `arguments.output_dir`.

    Metrics stand under the member's name, or under `A` (all levels), `A/level_0` ... and `A/synthetic`.

    Raises:
        ValueError: If the model, the files, the rows or an earlier record in the folder cannot be used.
    """
    if arguments.model and Path(arguments.output_dir).resolve() == Path(arguments.model).resolve():
        raise ValueError(f"output_dir={arguments.output_dir!r} is the model's own folder; choose another")
    with RunRecorder(asdict(arguments), seed=arguments.seed) as recorder:
        if arguments.predictions:
            made = pools_of_predictions(arguments.predictions, arguments.ensemble)
            made.warnings.append(AS_THEY_ARE)
        else:
            made = pools_of_model(arguments)
        recorder.data = made.data
        counts: dict[str, Any] = {}
        for name, pool in made.pools.items():
            for part, chosen in _parts(name, pool).items():
                recorder.metrics[part] = _metrics(chosen, arguments)
                counts[part] = answer_counts(chosen)
            if pool.synthetic_share:
                recorder.metrics[f"{name}/{SYNTHETIC}"] = class_metrics(pool, synthetic=True, seed=arguments.seed)
        recorder.details = {"answers": counts, "uncertainty": UNCERTAINTY, "presets": _presets(made.pools)}
        recorder.warnings += [*made.warnings, HALTED]
        recorder.write(arguments.output_dir)
        return recorder.result()


def simulation_table(result: RunResult, output_dir: str) -> str:
    """Describe a simulation: a line for each member, regime and level, then what the intervals mean."""
    names = [name for name, metrics in result.metrics.items() if "mean_reward" in metrics]
    width = max(map(len, names))
    columns = ("mcc", "mcc_balanced", "accuracy", "mean_reward", "ema_score")
    titles = ("MCC", "MCC at 50/50", "accuracy", "mean reward", "score (EMA)")
    lines = [f"{'':{width}}  " + "  ".join(f"{title:<20}" for title in titles) + "  one miner's reward, score"]
    for name in names:
        metrics = result.metrics[name]
        cells = "  ".join(f"{interval_text(metrics[column]):<20}" for column in columns)
        lines.append(f"{name:{width}}  {cells}  {_range(metrics, 'mean_reward')}, {_range(metrics, 'ema_score')}")
    for name in (name for name in result.metrics if name not in names):
        cells = [
            f"{title} {interval_text(result.metrics[name][key])}"
            for key, title in zip(columns, titles, strict=True)
            if key in result.metrics[name]
        ]
        lines.append(f"{name}: {', '.join(cells)}")
    for name, counts in result.details["answers"].items():
        if counts["no_answer"] or counts["no_probability"] or counts["ties_at_half"]:
            share = counts["no_answer"] / counts["answers"]
            lines.append(
                f"{name}: {share:.1%} of the answers are -1, {counts['no_probability']} no probability, "
                f"{counts['ties_at_half']} exactly 0.5 (None)"
            )
    lines += [
        "Brackets: 95 % over rows (bootstrap of whole groups). Last column: 95 % of single miners on the same rows.",
        f"every figure: {Path(output_dir) / RESULT_NAME}",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _parts(name: str, pool: ChallengePool) -> dict[str, ChallengePool]:
    """Return the pool of all levels, then that of each level where there are several."""
    levels = pool.answers.shape[1]
    single = {f"{name}/level_{number}": pool.level(number) for number in range(levels)} if levels > 1 else {}
    return {name: pool, **single}


def _metrics(pool: ChallengePool, arguments: SimulateArguments) -> dict[str, Interval]:
    return {**class_metrics(pool, False, seed=arguments.seed), **expected_reward(pool, arguments.simulation)}


def _presets(pools: dict[str, ChallengePool]) -> dict[str, Any]:
    return {
        name: {
            "period": PRESETS[name].period,
            "levels": list(PRESETS[name].levels),
            "synthetic_share": pool.synthetic_share,
        }
        for name, pool in pools.items()
        if name in PRESETS
    }


def _range(metrics: dict[str, Interval], name: str) -> str:
    found = metrics[name + ONE_MINER]
    return f"{found['low']:.3f} to {found['high']:.3f}"
