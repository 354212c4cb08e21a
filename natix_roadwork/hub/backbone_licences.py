"""What the licences of backbones say, for the card of a model that was trained on one.

A head that was trained on a backbone's tokens is of use with that backbone only, so the card takes the backbone's licence.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneLicence:
    """A backbone's licence.

    Attributes:
        name: What people call the backbone.
        identifier: Licence as the Hub's cards write it; `other` where the Hub has no word for it.
        text: What a user of the model must know, in one or two sentences.
        link: Where the licence stands; empty where `identifier` says all.
    """

    name: str
    identifier: str
    text: str
    link: str = ""


UNKNOWN = BackboneLicence(
    "an unlisted backbone",
    "other",
    "Its licence is not known to this card: read the page of the backbone before you use the model.",
)
_KNOWN = {
    r"dinov3": BackboneLicence(
        "DINOv3",
        "other",
        "DINOv3 comes under the DINOv3 License of Meta, which binds derivatives too and restricts some uses. Its "
        "repositories on the Hub are gated: accept the licence there before the weights can be fetched.",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
    ),
    r"dinov2": BackboneLicence("DINOv2", "apache-2.0", "DINOv2 is Apache-2.0."),
    r"convnextv2": BackboneLicence(
        "ConvNeXt V2",
        "cc-by-nc-4.0",
        "The Hub card of ConvNeXt V2 says Apache-2.0, while the authors' own repository says CC-BY-NC 4.0 for the "
        "weights. This card takes the stricter one: no commercial use unless the authors say otherwise.",
    ),
    r"efficientnet[-_]lite0": BackboneLicence("EfficientNet-Lite0", "apache-2.0", "EfficientNet-Lite0 is Apache-2.0."),
}


def backbone_licence(backbone_id: str | None) -> BackboneLicence:
    """Return what is known of a backbone's licence, by its id."""
    found = [licence for pattern, licence in _KNOWN.items() if re.search(pattern, (backbone_id or "").lower())]
    return found[0] if found else UNKNOWN
