"""Publish a trained model: score the lockbox once, push everything in one commit, load it back and compare.

Into a local folder, with the quickstart's model:

    python recipes/publish.py --config recipes/publish/quickstart.yaml

To the Hub, with a token that may write there in HF_TOKEN:

    python recipes/publish.py --config recipes/publish/natix.yaml --repo_id OWNER/NAME

Keys are the fields of `PublishArguments`. What is published holds safetensors, JSON, the model's code and its card. The
score is noted in `lockbox_log.jsonl`; publishing the same weights again takes it from there. Exit code 1: it was refused,
or what was loaded back differs from what was trained.
"""

import logging
import sys

from natix_roadwork.hub.publish import publish, publish_summary
from natix_roadwork.hub.publish_arguments import PublishArguments
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> int:
    """Parse the recipe, publish, and print what came of it; returns the exit code."""
    (arguments,) = parse_recipe(argv, [PublishArguments])
    logging.basicConfig(format="%(message)s")
    done = publish(arguments)
    print(publish_summary(done, arguments))
    return 1 if done.differences else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"publish: {' '.join(str(error).split())}")
