"""Which effects an augmentation preset has, with which probabilities.

The plan's fifteen effects, in four strengths besides its own; low light; TrivialAugment; what validators do; nothing.
`data/augmentation_effects.py` builds the effects. Light to import: the recipes' settings check names here.
"""

import difflib


# One decision for brightness and contrast together: fifteen effects in fourteen decisions.
PLAN = {
    "flip": 0.7,
    "rotate": 0.5,
    "perspective": 0.25,
    "zoom": 0.4,
    "brightness_contrast": 0.5,
    "saturation": 0.4,
    "hue": 0.25,
    "rain": 0.25,
    "fog": 0.25,
    "shadow": 0.3,
    "flare": 0.2,
    "noise": 0.2,
    "motion_blur": 0.15,
    "gaussian_blur": 0.15,
}
HEAVY = PLAN | {"flip": 0.5}
# What a night takes from a photo, in the order in which it happens: light, lamps in the lens, a long exposure, noise.
NIGHT = {
    "flip": 0.5,
    "rotate": 0.5,
    "perspective": 0.25,
    "zoom": 0.4,
    "low_light": 0.8,
    "lamp_glare": 0.3,
    "motion_blur": 0.3,
    "gaussian_blur": 0.15,
    "sensor_noise": 0.8,
}
# Factors on the probabilities; `plan` keeps its own flip.
STRENGTHS = {
    "plan": (PLAN, 1.0),
    "heavy": (HEAVY, 1.0),
    "light": (HEAVY, 0.5),
    "x0.75": (HEAVY, 0.75),
    "x1.5": (HEAVY, 1.5),
    "night": (NIGHT, 1.0),
}
MOST = 0.95
VALIDATOR_REGIMES = {"validator_a": "A", "validator_b": "B"}
PRESETS = ("none", *STRENGTHS, "trivial", *VALIDATOR_REGIMES)


def check_preset(name: str) -> str:
    """Return the name of a preset.

    Raises:
        ValueError: If there is none of that name; the nearest one is named.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"augmentation={name!r} is no preset; {hint}there are {', '.join(PRESETS)}")
    return name


def probabilities(preset: str) -> dict[str, float]:
    """Give the probability of each effect of a preset, at most .95; empty where a preset has no such effects."""
    if preset not in STRENGTHS:
        return {}
    base, factor = STRENGTHS[preset]
    return {name: min(MOST, round(factor * p, 6)) for name, p in base.items()}
