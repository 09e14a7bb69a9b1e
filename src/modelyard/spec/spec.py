"""Load `modelyard.yaml`: read, convert, look for contradictions, and say all that is wrong at once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import NotFound, UserError, near
from modelyard.checks.section import given, to_check
from modelyard.deploy.section import Deploy
from modelyard.deploy.stages import endpoint_at
from modelyard.models.section import Model
from modelyard.records import Check
from modelyard.spec.contradict import contradict
from modelyard.spec.convert import convert
from modelyard.spec.declaration import Declaration
from modelyard.spec.read import read
from modelyard.spec.report import Report

__all__ = ["FILE", "Spec", "load"]

FILE = "modelyard.yaml"


class Spec(Declaration, frozen=True, kw_only=True, dict=True):
    """A declaration that holds together, with the place of everything in it.

    Attributes:
        path: The file, absolute.
        places: Dotted path -> line and column (from 1), e.g. `checks.0.gap.across`.
    """

    path: Path
    places: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Folder of the project; relative paths in the file begin here."""
        return self.path.parent

    @property
    def model_name(self) -> str:
        """Name of the model, and of its endpoint where it has no stages."""
        return self.deploy.endpoint or self.project

    @property
    def stages(self) -> dict[str, str]:
        """The endpoint of each stage by its name, lowest first; empty where none is declared."""
        return {stage: endpoint_at(self.model_name, stage) for stage in self.deploy.stages}

    @property
    def endpoint(self) -> str:
        """Name under which a model answers that a run has made: in the first stage, where there are any."""
        return next(iter(self.stages.values()), self.model_name)

    def deployed(self, endpoint: str) -> Deploy:
        """Return the section on deployment as it holds at an endpoint."""
        stage = next((self.deploy.stages[name] for name, known in self.stages.items() if known == endpoint), None)
        if stage is None or stage.rollout is None:
            return self.deploy
        return msgspec.structs.replace(self.deploy, rollout=stage.rollout)

    @property
    def required_model(self) -> Model:
        """The `model` section, for what cannot do without one.

        Raises:
            UserError: The file declares none (`model-not-declared`).
        """
        if self.model is None:
            raise UserError(
                "model-not-declared",
                "the file declares no model, and this needs one",
                where=self.where(""),
                hint="add `data` and `model` (`modelyard explain model`); own steps run with `modelyard run`",
            )
        return self.model

    @cached_property
    def digest(self) -> str:
        """Digest of what is declared; comments, order of fields and the file's place do not count."""
        return digest_of({name: getattr(self, name) for name in Declaration.__struct_fields__})

    def where(self, path: str) -> str:
        """Return `modelyard.yaml:12` for a dotted path, or for the nearest thing around it."""
        while path and path not in self.places:
            path = path.rpartition(".")[0]
        return f"{_shown(self.path)}:{self.places.get(path, (1, 1))[0]}"

    def check_list(self) -> tuple[Check, ...]:
        """Return the declared checks in order, each under a name of its own.

        A name that is taken gets `.2`, `.3`, ... (two gaps of one metric across different columns, say).
        """
        checks: list[Check] = []
        counts: dict[str, int] = {}
        for kind, settings in filter(None, map(given, self.checks)):
            check = to_check(kind, settings)
            count = counts[check.name] = counts.get(check.name, 0) + 1
            checks.append(check if count == 1 else msgspec.structs.replace(check, name=f"{check.name}.{count}"))
        return tuple(checks)


def load(path: Path | str = FILE, *, files: bool = True) -> Spec:
    """Read and check a declaration.

    Args:
        path: The file, or the folder that holds `modelyard.yaml`.
        files: Also look whether the data and the features that it names are there.

    Raises:
        SpecError: With every mistake found, in the order of the file.
        NotFound: There is no such file.
    """
    place = Path(path)
    if place.is_dir():
        place = place / FILE
    report = Report(_shown(place))
    root = read(_bytes(place), report)
    declaration, places = convert(root, report)
    absolute = place.absolute()
    contradict(declaration, absolute.parent, places, report, files=files)
    report.stop_if_any()
    values = {name: getattr(declaration, name) for name in Declaration.__struct_fields__}
    return Spec(**values, path=absolute, places=places)


def _bytes(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        raise _absent(place) from None
    except OSError as error:
        raise NotFound(
            "spec-unreadable", f"`{_shown(place)}` cannot be read: {error.strerror}", hint="mend its permissions"
        ) from None


def _absent(place: Path) -> NotFound:
    folder = place.parent
    names = [p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml")] if folder.is_dir() else []
    close = near(place.name, names, most=1)
    hint = "`modelyard init` writes one that runs; `-f FILE` names another"
    if close:
        hint = f"did you mean `{_shown(folder / close[0])}`? name it with -f"
    return NotFound("spec-not-found", f"there is no `{_shown(place)}`", hint=hint)


def _shown(path: Path) -> str:
    """Return the path as seen from here, where that is shorter and does not climb."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
