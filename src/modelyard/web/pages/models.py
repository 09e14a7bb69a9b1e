"""Models: the candidates of the newest search, every version, and where the aliases point."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import NotFound
from modelyard.deploy.promotion import Standing, standing
from modelyard.records import Candidate, CheckResult, Evidence, Feature, ModelVersion, Run
from modelyard.web.answer import answer
from modelyard.web.pages.parts import CheckRow, ModelRow, TableLink, check_rows, model_row, table_link
from modelyard.web.query import Query
from modelyard.web.reader import Catalog, Made, Moved, Reader, values_in

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = [
    "CandidateRow",
    "ModelPage",
    "ModelsPage",
    "Move",
    "find_model",
    "load",
    "load_model",
    "moves",
    "view",
    "view_model",
]

_PAGE = 50
_MOVES = 20


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One family on the leaderboard.

    Attributes:
        family: Name of the family.
        mean: Mean score over the folds; none if the family is out.
        scores: Score on each fold.
        spread: Largest less smallest score.
        trials: Trials finished.
        cost: Relative price of one prediction.
        params: Best settings found.
        failed: Why it is out; empty if it is in.
        stopped_by_time: Whether its search ended on the clock.
        p_value: Chance of so large a difference from the best if there were none; none for the best itself.
        chosen: Whether the model of the run is of this family.
    """

    family: str
    mean: float | None
    scores: tuple[float, ...]
    spread: float | None
    trials: int
    cost: float
    params: dict[str, Any]
    failed: str
    stopped_by_time: bool
    p_value: float | None
    chosen: bool


@dataclass(frozen=True, slots=True)
class Move(Moved):
    """One move of an alias, as a page shows it.

    Attributes:
        now: Whether it still points there.
    """

    now: bool


@dataclass(frozen=True, slots=True)
class ModelsPage:
    """The models of the project.

    Attributes:
        title: Title of the page.
        candidates: Leaderboard of the newest run that searched, best first.
        metric: Metric of the leaderboard.
        higher_is_better: Direction of the metric.
        reason: Why the winner won, from the selection's own result.
        run: The run of the leaderboard; empty without one.
        versions: The newest 50 model versions, newest first.
        total: Model versions there are.
        moves: The newest 20 moves of aliases, newest first.
        stages: What answers in each stage and what waits to enter it, lowest first; empty where none are declared.
    """

    title: str
    candidates: tuple[CandidateRow, ...]
    metric: str
    higher_is_better: bool
    reason: str
    run: str
    versions: tuple[ModelRow, ...]
    total: int
    moves: tuple[Move, ...]
    stages: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class ModelPage:
    """One model version.

    Attributes:
        title: Title of the page.
        model: The version as a row.
        task: `binary`, `multiclass` or `regression`.
        target: Name of the target column.
        classes: Its classes.
        positive: The class whose probability is the score.
        params: Settings of the family.
        features: What it takes.
        trained_on: The table versions it was trained on.
        environment: Digest of the environment it was trained in.
        address: Where the store keeps its sealed folder.
        step: Step that made it.
        checks: What the checks of its run came to.
        moves: Moves of aliases to it, newest first.
        has_card: Whether its run made a card.
    """

    title: str
    model: ModelRow
    task: str
    target: str
    classes: tuple[str, ...]
    positive: str
    params: dict[str, Any]
    features: tuple[Feature, ...]
    trained_on: tuple[TableLink, ...]
    environment: str
    address: str
    step: str
    checks: tuple[CheckRow, ...]
    moves: tuple[Move, ...]
    has_card: bool


def load(store: Reader, query: Query) -> ModelsPage:
    """Read the leaderboard, the versions and the moves."""
    catalog = store.catalog()
    current = list(catalog.aliases.values())
    models = list(catalog.models.values())
    board = _leaderboard(store)
    best = board.candidates[0] if board.candidates else None
    return ModelsPage(
        title="Models",
        candidates=tuple(_candidate_row(one, board) for one in board.candidates),
        metric=best.metric if best else "",
        higher_is_better=best.higher_is_better if best else True,
        reason=board.reason,
        run=board.run,
        versions=tuple(model_row(made, current) for made in reversed(models[-_PAGE:])),
        total=len(models),
        moves=moves(catalog),
        stages=standing(store.store),
    )


@dataclass(slots=True)
class _Board:
    """What a run's search came to, while it is read."""

    run: str = ""
    candidates: list[Candidate] = field(default_factory=list)
    winner: str = ""
    reason: str = ""
    p_values: dict[str, float] = field(default_factory=dict)


def _leaderboard(store: Reader) -> _Board:
    """Return the leaderboard of the newest run that searched, best first."""
    for run in store.ledger.runs(limit=20):
        whole = store.ledger.run(run.id)
        board = _searched(whole) if whole else _Board()
        if board.candidates:
            sign = -1.0 if board.candidates[0].higher_is_better else 1.0
            board.candidates.sort(key=lambda c: (bool(c.failed) or not c.scores, sign * c.mean if c.scores else 0.0))
            return board
    return _Board()


def _searched(run: Run) -> _Board:
    found: dict[str, Candidate] = {}
    board = _Board(run.id)
    for step in run.steps:
        for output, value in values_in(step.outputs):
            if isinstance(value, Candidate) and step.name.startswith("train."):
                found[value.family] = value
            elif isinstance(value, Evidence | CheckResult) and output == "selection":
                _selected(board, value if isinstance(value, Evidence) else value.evidence)
    board.candidates = list(found.values())
    return board


def _selected(board: _Board, selection: Evidence) -> None:
    details = selection.details
    board.winner, board.reason = str(details.get("winner", "")), str(details.get("reason", ""))
    for row in details.get("rows", ()):
        if isinstance(row, dict) and row.get("p_value") is not None:
            board.p_values[str(row.get("family"))] = float(row["p_value"])


def _candidate_row(one: Candidate, board: _Board) -> CandidateRow:
    return CandidateRow(
        family=one.family,
        mean=one.mean if one.scores else None,
        scores=one.scores,
        spread=max(one.scores) - min(one.scores) if one.scores else None,
        trials=one.trials,
        cost=one.cost,
        params=one.params,
        failed=one.failed,
        stopped_by_time=one.stopped_by_time,
        p_value=board.p_values.get(one.family),
        chosen=one.family == board.winner,
    )


def moves(catalog: Catalog, digest: str = "", *, most: int = _MOVES) -> tuple[Move, ...]:
    """Return the newest moves of aliases (to one model), newest first."""
    wanted = (one for one in reversed(list(catalog.moves)) if not digest or one.digest == digest)
    return tuple(
        Move(**asdict(one), now=catalog.aliases[one.endpoint, one.alias] is one) for one in islice(wanted, most)
    )


def find_model(store: Reader, digest: str) -> Made[ModelVersion]:
    """Return the model version whose digest begins so.

    Raises:
        NotFound: There is none.
    """
    models = store.catalog().models
    found = next((made for known, made in list(models.items()) if digest and known.startswith(digest)), None)
    if found is None:
        raise NotFound.of("model", digest, [known[:12] for known in list(models)])
    return found


def load_model(store: Reader, query: Query) -> ModelPage:
    """Read one model version.

    Raises:
        NotFound: There is no such model.
    """
    catalog = store.catalog()
    made = find_model(store, query.text("model"))
    model, run = made.value, store.ledger.run(made.run)
    problem = model.signature.problem
    checks = check_rows(run, catalog) if run else ()
    return ModelPage(
        title=f"{model.name} {model.digest[:12]}",
        model=model_row(made, list(catalog.aliases.values())),
        task=problem.task,
        target=problem.target,
        classes=problem.classes,
        positive=problem.positive,
        params=model.params,
        features=model.signature.features,
        trained_on=tuple(table_link(catalog, digest) for digest in model.trained_on),
        environment=model.environment,
        address=model.address,
        step=made.step,
        checks=tuple(row for row in checks if row.model in ("", model.digest)),
        moves=moves(catalog, model.digest),
        has_card=made.run in catalog.cards,
    )


async def view(request: Request) -> Response:
    """Answer `/models`."""
    return await answer(request, load, "models.html")


async def view_model(request: Request) -> Response:
    """Answer `/models/{model}`."""
    return await answer(request, load_model, "model.html")
