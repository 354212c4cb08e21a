"""What a whole card looks like: a regular expression that must match it from the first character to the last."""

INTERVAL = r"(?:-?\d\.\d{3}(?: \[-?\d\.\d{3}, -?\d\.\d{3}\])?|undefined)"
SIGNED = r"(?:[+-]\d\.\d{3}(?: \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\])?|undefined)"
LINE = r"[^\n{}]+"
_FRONT = r"""---
license: [\w.-]+
(?:license_name: [\w.-]+
(?:license_link: https://\S+
)?)?library_name: transformers
pipeline_tag: image-classification
(?:base_model:
(?:- [\w./-]+
)+)?(?:datasets:
- [\w./-]+
)?tags:
(?:- [\w-]+
)+metrics:
(?:- \w+
)+---

# [\w.-]+

Tells from one street photo whether there is roadwork in it: the probability of the label `Roadwork`\.
(?:
> \*\*A stand-in\.\*\* LINE
)?
## What it decides, and on what photos

Roadwork means LINE The photo is read in \d+ views? of \d+ pixels, each by a frozen backbone \(`[\w./-]+`\), and a trained head of \d+\.\d million parameters finds the evidence in them\.(?: It also reads LINE)?

It was trained on \d+ photos of `[\w./ -]+`, \d+ of them with roadwork\. LINE
"""
_SCORES = r"""
## How well

\| split \| photos \| MCC \[95 % interval\] \| MCC at equal shares \| accuracy \| missed roadwork \| AUC \| calibration error \|
\|(?:---\|){8}
(?:\| (?:dev|test|held out|not scored)[\w ()']* \| \d+ (?:\| INTERVAL ){6}\|
)+
Intervals are bootstraps LINE

### Lockbox

(?:The test split of `LINE`, \d+ photos, \d+ of them with roadwork, was scored once for these weights\.

\| answers \| MCC \[95 % interval\] \| MCC at equal shares \| accuracy \| missed roadwork \| AUC \| scored \|
\|(?:---\|){7}
(?:\| (?:model|calibrated|adapters|ensemble) (?:\| INTERVAL ){5}\| \d{4}-\d\d-\d\d \|
)+
(?:Before them, \d+ other sets of weights LINE|No other weights are logged for these photos\.)
(?:\*\*Transductive, not comparable\*\*: LINE
)?Every scoring is noted in `lockbox_log\.jsonl`\.|Not scored: LINE)

## Baselines

(?:Fitted on the same frozen tokens, scored on (?:dev|test|held out photos)\.

\| on the same tokens \| MCC \[95 % interval\] \| AUC \|
\|(?:---\|){3}
(?:\| [\w *]+ \| INTERVAL \| INTERVAL \|
)+|None were scored in this run, LINE
)
## Training

Recipe `[\w./<> -]+`, commit (?:`[0-9a-f]{12}`(?: with changes)?|unknown), seed \d+; [\d.]+ (?:minutes|hours) on LINE\.

```bash
LINE
```

`result\.json` LINE

## Where it errs

(?:\| slice \| photos \| MCC \[95 % interval\] \| missed roadwork \| error rate against the rest \|
\|(?:---\|){5}
(?:\| [\w ]+: [\w ().,-]+ \| \d+ \| INTERVAL \| INTERVAL \| SIGNED \|
)+
Slices with too few photos are left out \(\d+\)\.|No error report was given, LINE)
"""
_REST = r"""
## Limits and unsuitable uses

(?:- [^\n{}]+\.
){3,}
## Privacy

Street photos show faces, number plates and homes\. LINE

## Licence

The code and the trained head are Apache-2\.0\. The backbones? ha(?:s a licence|ve licences) of (?:its|their) own:

(?:- LINE
)+
The backbone's weights are (?:not )?part of this repository(?:\.|; LINE)

## Load it

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification

repo = "[\w./-]+"
(?:LINE
)+```

The code that `trust_remote_code` runs LINE
(?:
LINE:

```python
[^`{}]+```
){0,4}"""
CARD_PATTERN = (_FRONT + _SCORES + _REST).replace("LINE", LINE).replace("INTERVAL", INTERVAL).replace("SIGNED", SIGNED)
