"""Write a model as an ONNX file that answers as the model does.

    pip install 'natix-roadwork[onnx]'
    python recipes/export_onnx.py runs/quickstart/distill/lite runs/quickstart/lite.onnx

A lite folder gives pixels to logits, the folder of a full model gives tokens to logits. onnxruntime's answers are compared
with the model's; a difference above 1e-4 is an error.
"""

import argparse
import sys

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from natix_roadwork import RoadworkConfig
from natix_roadwork.hub.export import as_vit_processor
from natix_roadwork.hub.onnx_export import export_head_onnx, export_lite_onnx


def main(argv: list[str]) -> None:
    """Load the folder, export, and say how far the answers are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a model's folder or Hub id")
    parser.add_argument("out", help="the .onnx file")
    chosen = parser.parse_args(argv)
    full = AutoConfig.from_pretrained(chosen.folder).model_type == RoadworkConfig.model_type
    model = AutoModelForImageClassification.from_pretrained(chosen.folder)
    if full:
        difference = export_head_onnx(model, chosen.out)
    else:
        processor = as_vit_processor(AutoImageProcessor.from_pretrained(chosen.folder))
        difference = export_lite_onnx(model, processor, chosen.out)
    kind = "view_features, view_mask -> logits" if full else "pixel_values -> logits"
    print(f"{chosen.out}: {kind}, at most {difference:.1e} from the model")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"export_onnx: {' '.join(str(error).split())}")
