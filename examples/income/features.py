"""The features of the income model: one name mended, one column that only weighs the census left out."""

import narwhals as nw


def build(tables: dict[str, nw.LazyFrame]) -> nw.LazyFrame:
    """Rename the target, and drop what describes the sample rather than the person."""
    return tables["applicants"].rename({"Y": "income"}).drop("fnlwgt", "education")
