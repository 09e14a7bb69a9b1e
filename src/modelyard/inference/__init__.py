"""A model at work: rows in, predictions out, the same code in training, evaluation and serving.

`encode` turns rows into the arrays a model takes, `predictor` runs them (`native` where a model could not be
exported, `runtimes` says what there is), `decode` turns what came out into labels and probabilities, `bundle` opens
the sealed folder that holds it all. The house is small on purpose: the serving process loads it and nothing above it.
"""

from __future__ import annotations

from modelyard.inference.bundle import Bundle, BundleDraft, digest_of_model, open_bundle
from modelyard.inference.decode import THRESHOLD, picked, scores
from modelyard.inference.encode import Encoder, Feeds, as_text
from modelyard.inference.predictor import OnnxPredictor, Predictor

__all__ = [
    "THRESHOLD",
    "Bundle",
    "BundleDraft",
    "Encoder",
    "Feeds",
    "OnnxPredictor",
    "Predictor",
    "as_text",
    "digest_of_model",
    "open_bundle",
    "picked",
    "scores",
]
