"""How measures read on a card: their names, and what the four error rates are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RATES", "Rate", "measure_title", "words"]

_TITLES = {
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "mape": "MAPE",
    "r2": "R²",
    "f1": "F1",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """One of the four error rates.

    Attributes:
        short: Its short name, e.g. `FPR`.
        name: Its name as a measure, e.g. `false_positive_rate`.
        about: What it is a share of.
    """

    short: str
    name: str
    about: str

    @property
    def title(self) -> str:
        """Its name as a heading."""
        return words(self.name)


RATES = (
    Rate("FPR", "false_positive_rate", "of those that are negative, the share called positive"),
    Rate("FNR", "false_negative_rate", "of those that are positive, the share called negative"),
    Rate("FDR", "false_discovery_rate", "of those called positive, the share that is negative"),
    Rate("FOR", "false_omission_rate", "of those called negative, the share that is positive"),
)


def words(name: str) -> str:
    """Return a name as words: `false_negative_rate` is `False negative rate`."""
    text = name.replace("_", " ").replace(".", " ").strip()
    return text[:1].upper() + text[1:]


def measure_title(name: str) -> str:
    """Return the name of a measure as a card writes it.

    >>> measure_title("roc_auc"), measure_title("balanced_accuracy"), measure_title("roc_auc_difference")
    ('ROC AUC', 'Balanced accuracy', 'ROC AUC difference')
    """
    known = next((k for k in _TITLES if name == k or name.startswith(f"{k}_")), "")
    return f"{_TITLES[known]}{name.removeprefix(known).replace('_', ' ')}" if known else words(name)
