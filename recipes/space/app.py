"""The demo as a Hugging Face Space: a photo in, what a saved model says of it out.

The Space's variable MODEL_ID names the model, a Hub id; of a private one, the secret HF_TOKEN lets it be read.
"""

import os

from natix_roadwork.inference.demo import serve


def main() -> None:
    """Serve the model that MODEL_ID names."""
    model = os.environ.get("MODEL_ID")
    if not model:
        raise SystemExit(
            "MODEL_ID is not set: name the model's Hub id under Settings, Variables, and restart the Space"
        )
    serve(model)


if __name__ == "__main__":
    main()
