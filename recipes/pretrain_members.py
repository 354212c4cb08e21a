"""Train the members of an ensemble, one run of `recipes/pretrain.py` each.

    python recipes/pretrain_members.py --config recipes/ensemble/members.yaml

One after another; or one a GPU, one process each, or several at a time on a CPU:

    python recipes/pretrain_members.py --config recipes/ensemble/members.yaml --devices 0 1
    python recipes/pretrain_members.py --config recipes/ensemble/members.yaml --workers 2 \
        --launch_config recipes/accelerate/cpu.yaml

Any key of `recipes/pretrain.py` may follow and holds for all members. Given again, the same command skips members that are
trained, continues those that were killed, and tries those again that failed. The exit code is 1 if one failed.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path

from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.member_report import failed_names, members_table, record_members, write_members
from natix_roadwork.training.member_runs import train_members
from natix_roadwork.training.members import MembersArguments, parse_members


def launch_words(arguments: MembersArguments) -> list[str]:
    """The command of one run, up to the member's own arguments; `--quiet` leaves the last word to the run's own error."""
    words = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
    words += ["--config_file", arguments.launch_config]
    if arguments.devices:  # or the config's gpu_ids would win over CUDA_VISIBLE_DEVICES
        words += ["--gpu_ids", "all"]
    return [*words, os.path.relpath(Path(__file__).with_name("pretrain.py"))]


def main(argv: list[str]) -> None:
    """Settle all members' settings, train what is missing, and print, write and record what came out."""
    arguments, members = parse_members(argv)
    slots = [{"CUDA_VISIBLE_DEVICES": device} for device in arguments.devices] or [{}] * arguments.workers
    with RunRecorder(asdict(arguments), members[0].settings["seed"]) as recorder:
        outcomes = train_members(members, launch_words(arguments), slots)
        write_members(outcomes, arguments.output_dir)
        record_members(recorder, outcomes)
        recorder.write(arguments.output_dir)
    print(members_table(outcomes, arguments.output_dir))
    if failed := failed_names(outcomes):
        sys.exit(
            f"pretrain_members: {', '.join(failed)} failed, see the log in each folder; the same command tries again"
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"pretrain_members: {' '.join(str(error).split())}")
