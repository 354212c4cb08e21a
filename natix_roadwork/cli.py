"""The command `natix-roadwork`: look at the machine, draw scenes, report errors, check and publish models, replay a run.

Exit codes: 0 as asked; 1 the answer is no (something required is missing, a replay gave other numbers, a stock miner
would not score, a published model is not what was trained); 2 the command or its files are wrong, said in one line.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from natix_roadwork.environment import Check, check_environment
from natix_roadwork.replay import replay


NO = 1
WRONG = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Words after `natix-roadwork`; None takes the process's own.
    """
    parser = _parser()
    args, args.keys = parser.parse_known_args(argv)
    if args.keys and args.run not in (_report, _publish):
        parser.error(f"unrecognized arguments: {' '.join(args.keys)}")
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        print(f"natix-roadwork {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="natix-roadwork", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_env(commands)
    _add_scenes(commands)
    _add_report(commands)
    _add_publish(commands)
    _add_card(commands)
    _add_replay(commands)
    _add_check(commands)
    return parser


def _add_env(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("env", help="versions, attention backends, what this machine can do")
    command.set_defaults(run=_env)


def _add_scenes(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("scenes", help="draw the embedded data set, parquet files in NATIX's columns")
    command.add_argument("folder", help="absent, empty, or finished with the same settings")
    command.add_argument(
        "--num-rows", "--num_rows", type=int, default=300, help="rows of train and test (%(default)s)"
    )
    command.add_argument("--width", type=int, default=1600, help="longer side of the photos in pixels (%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="same versions and seed, same bytes (%(default)s)")
    command.add_argument(
        "--positive-share", "--positive_share", type=float, default=0.8, help="in train (%(default)s)"
    )
    command.add_argument("--test-share", "--test_share", type=float, default=0.2, help="of all rows (%(default)s)")
    command.add_argument("--workers", type=int, default=0, help="processes to draw in; 0 draws in this one")
    command.add_argument("--no-masks", "--no_masks", action="store_true", help="leave the masks out")
    command.add_argument("--contact-sheet", "--contact_sheet", metavar="JPEG", help="also write a grid of scenes")
    command.set_defaults(run=_scenes)


def _add_report(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "report",
        help="write a page of where a member is wrong; keys as of recipes/report.py",
        usage="%(prog)s [--config YAML] --predictions FILE --dataset_name NAME [--output HTML] [--model FOLDER] [--key value ...]",
        description="Takes the keys of recipes/report.py: the fields of ReportArguments, in a YAML file or one by one.",
        allow_abbrev=False,
    )
    command.set_defaults(run=_report)


def _add_publish(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "publish",
        help="score the lockbox once, push a model and load it back; keys as of recipes/publish.py",
        usage="%(prog)s [--config YAML] --model FOLDER (--repo_id OWNER/NAME | --folder FOLDER) [--key value ...]",
        description="Takes the keys of recipes/publish.py: the fields of PublishArguments, in a YAML file or one by one.",
        allow_abbrev=False,
    )
    command.set_defaults(run=_publish)


def _add_card(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("card", help="render the cards of a published model again, from its result.json")
    command.add_argument("result", metavar="RESULT_JSON", help="the record beside a published model")
    command.add_argument("folder", help="where README.md and model_card.json go")
    command.set_defaults(run=_card)


def _add_replay(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("replay", help="run the command of a result.json again and compare the numbers")
    command.add_argument("result", metavar="RESULT_JSON", help="the record of the earlier run")
    command.add_argument("--output-dir", "--output_dir", help="folder of the new run (the earlier one's with -replay)")
    command.add_argument("--tolerance", type=float, default=1e-6, help="what still counts as equal (%(default)s)")
    command.set_defaults(run=_replay)


def _add_check(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "check", help="whether a stock miner of the subnet would score with a model's folder"
    )
    command.add_argument("folder", help="a saved model with its image processor")
    command.add_argument(
        "--profile",
        choices=("stock-4.45", "modern"),
        default="stock-4.45",
        help="the miner's transformers: 4.45.2 as pinned, or newer (%(default)s)",
    )
    command.add_argument("--photos", metavar="FOLDER", help="street photos to ask about (drawn scenes and noise)")
    command.add_argument("--repo-id", "--repo_id", help="also check the name of the Hub repository")
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.set_defaults(run=_check)


def _env(args: argparse.Namespace) -> int:
    checks = check_environment()
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{_mark(check):9}{check.name:{width}}  {check.found}")
    fixes = dict.fromkeys(check.fix for check in checks if not check.ok)
    if fixes:
        print("\nto mend it:", *fixes, sep="\n  ")
    return NO if any(check.required and not check.ok for check in checks) else 0


def _mark(check: Check) -> str:
    return "ok" if check.ok else "MISSING" if check.required else "optional"


def _scenes(args: argparse.Namespace) -> int:
    # Imported here: `env` and `replay` must answer where a package that only drawing needs is missing.
    from natix_roadwork.data.scenes import SceneSettings, write_contact_sheet, write_scenes

    settings = SceneSettings(
        num_rows=args.num_rows,
        width=args.width,
        seed=args.seed,
        positive_share=args.positive_share,
        test_share=args.test_share,
    )
    folder = write_scenes(args.folder, settings, num_workers=args.workers, masks=not args.no_masks)
    print(f"{folder}: {args.num_rows} drawn scenes, a stand-in for photos, as dataset_name for a recipe")
    if args.contact_sheet:
        sheet = SceneSettings(num_rows=200, test_share=0.0, positive_share=0.5, max_frames=1, seed=args.seed)
        print(write_contact_sheet(args.contact_sheet, sheet))
    return 0


def _report(args: argparse.Namespace) -> int:
    from natix_roadwork.inference.report_run import ReportArguments, report_summary, run_report
    from natix_roadwork.training.yaml_args import parse_recipe

    (arguments,) = parse_recipe(args.keys, [ReportArguments])
    print(report_summary(run_report(arguments), arguments.output))
    return 0


def _publish(args: argparse.Namespace) -> int:
    from natix_roadwork.hub.publish import publish, publish_summary
    from natix_roadwork.hub.publish_arguments import PublishArguments
    from natix_roadwork.training.yaml_args import parse_recipe

    (arguments,) = parse_recipe(args.keys, [PublishArguments])
    done = publish(arguments)
    print(publish_summary(done, arguments))
    return NO if done.differences else 0


def _card(args: argparse.Namespace) -> int:
    from natix_roadwork.hub.cards import write_cards
    from natix_roadwork.runs import read_result

    write_cards(args.folder, read_result(args.result))
    print(f"the cards of {args.result} lie in {args.folder}")
    return 0


def _replay(args: argparse.Namespace) -> int:
    report = replay(args.result, args.output_dir, args.tolerance)
    for warning in report.warnings:
        print(f"not the same: {warning}")
    for difference in report.differences:
        print(f"differs: {difference}")
    if report.differences:
        print(f"{len(report.differences)} numbers differ by more than {args.tolerance:g}")
        return NO
    print(f"every metric and baseline is the same within {args.tolerance:g}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from natix_roadwork.hub.check import check_folder

    report = check_folder(args.folder, args.profile, args.photos, args.repo_id)
    print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if args.json else report.text())
    return 0 if report.scores else NO
