"""A page in the browser: a photo in, what a saved model says of it out. `natix-roadwork demo` and a Hugging Face Space run it.

In comes a `PhotoModel`; out goes a Gradio page that asks nothing of any other server and keeps no upload.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from tempfile import TemporaryDirectory

import gradio as gr

from natix_roadwork.inference.demo_result import photo_result
from natix_roadwork.inference.photo_model import PhotoModel, load_photo_model


STYLE = "demo.css"
TITLE = "Is there roadwork in this photo?"
INTRO = (
    "Give a photo of a street. A model says how likely it shows roadwork: cones, barriers, signs, workers, machines. "
    "It can be wrong, so nobody's safety should depend on it. The photo is deleted within a quarter of an hour."
)
TTA_LABEL = "Look at 16 variants of the photo and take the mean (16 times slower, sometimes steadier)"
MAX_FILE_SIZE = "64mb"
# Uploads older than the second number of seconds are deleted every first number of seconds; the rest with the server.
DELETE_CACHE = (60, 600)
# Of the system: a page that fetches fonts tells another server who reads it.
FONTS, CODE_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")


def demo_page(model: PhotoModel) -> gr.Blocks:
    """Lay the page out; `running` serves it.

    Args:
        model: Answers one photo at a time.
    """

    def show(photo: bytes | None, tta: bool) -> str:
        return "" if photo is None else photo_result(model, photo, "mean" if tta else "off")

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        gr.Markdown(f"# {TITLE}\n\n{INTRO}", elem_classes="intro")
        photo = gr.File(label="A street photo", type="binary", height=150)
        tta = gr.Checkbox(label=TTA_LABEL)
        result = gr.HTML(elem_id="result", min_height=120)  # room for the sign that it is at work
        # One at a time: the page of a second reader waits for its turn instead of slowing the first one's.
        gr.on(
            [photo.upload, photo.clear, tta.input], show, [photo, tta], result, concurrency_limit=1, api_name="predict"
        )
    return page


@contextmanager
def running(model: PhotoModel, port: int | None = None) -> Iterator[gr.Blocks]:
    """Serve the page until the block ends; its address is `local_url` of what is yielded.

    Uploads lie in a folder of their own, which goes when the server does.

    Args:
        model: Answers.
        port: None = the first free one from 7860.

    Raises:
        ValueError: If the port cannot be had.
    """
    with TemporaryDirectory(prefix="natix-roadwork-demo-") as uploads, _environment(uploads):
        page = demo_page(model)
        try:
            page.launch(
                prevent_thread_lock=True,
                quiet=True,
                server_port=port,
                share=False,
                ssr_mode=False,
                footer_links=[],
                run_history=False,
                max_file_size=MAX_FILE_SIZE,
                theme=gr.themes.Default(font=FONTS, font_mono=CODE_FONTS),
                css=files("natix_roadwork.inference").joinpath(STYLE).read_text(encoding="utf-8"),
            )
        except OSError as error:
            raise ValueError(f"port={port!r}: {error}") from error
        try:
            yield page
        finally:
            page.close(verbose=False)


def serve(model: str, device: str | None = None, adapters: str | None = None, port: int | None = None) -> None:
    """Load a model and serve its page until it is interrupted.

    Args:
        model: Folder or Hub id, as for `load_photo_model`; so are the next two.
        device: Where it runs.
        adapters: Fold adapters.
        port: None = the first free one from 7860.

    Raises:
        ValueError: If the model or the port cannot be had.
    """
    with running(load_photo_model(model, device, adapters), port) as page:
        sys.stderr.write(f"the page is at {page.local_url} (Ctrl-C ends it)\n")
        page.block_thread()


@contextmanager
def _environment(uploads: str) -> Iterator[None]:
    """Set for a while what Gradio reads from the environment alone."""
    wanted = {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
