"""The bundle: one folder with the model, what it takes, what it answers and what it was made from.

    model.json          the ModelVersion, without the address it is stored under
    model.onnx          the model; or model.txt (LightGBM) / model.skops behind prepare.onnx
    trees.msgpack       the model again, where trees run faster by bit vectors than in a runtime
    labels.json         the classes in the type they had in the data
    profile.json        what the data and the predictions looked like, for monitoring
    environment.json    interpreter and libraries that made it
    recipe.json         family, settings and seed that made it
    card.json           the model card, once it is released
    manifest.*          the seal, see `modelyard.security.seal`

The digest of a model covers its own files: neither the card nor the seal, nor the fields of `model.json` that only
the store and the run know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.digest import canonical, digest_bytes, digest_of
from modelyard._kit.errors import ModelError, Tampered
from modelyard.inference.decode import Label
from modelyard.inference.encode import Encoder, Feeds, Rows
from modelyard.inference.predictor import Predictor
from modelyard.inference.runtimes import Beside, load, usual
from modelyard.records import ModelVersion, Runtime, Signature

__all__ = ["MODEL", "Bundle", "BundleDraft", "digest_of_model", "open_bundle", "own_files"]

MODEL = "model.json"
_CARD = "card"
_SEAL = "manifest."


def own_files(names: Collection[str]) -> list[str]:
    """Return the names of the files that are the model itself, sorted: neither card nor seal."""
    return sorted(n for n in names if not n.startswith((f"{_CARD}.", f"{_CARD}/", _SEAL)))


def digest_of_model(files: Mapping[str, bytes]) -> str:
    """Return the digest of a model's own files; equal recipes on equal data have equal digests.

    Args:
        files: Relative path -> content; card and seal are left out of account.
    """
    parts = {}
    for name in own_files(files):
        data = files[name]
        parts[name] = digest_bytes(_bare(data) if name == MODEL else data)
    return digest_of(parts)


def _bare(data: bytes) -> bytes:
    """`model.json` without what is known only after the model was made."""
    version = msgspec.json.decode(data, type=ModelVersion)
    return canonical(msgspec.structs.replace(version, digest="", address="", trained_on=(), released=False))


@dataclass(frozen=True, slots=True)
class BundleDraft:
    """A bundle that is not sealed yet: what a step returns and the runner stores.

    Attributes:
        version: The version; its digest is that of the files.
        files: Relative path -> content, `model.json` among them.
    """

    version: ModelVersion
    files: dict[str, bytes]

    @classmethod
    def of(cls, version: ModelVersion, files: Mapping[str, bytes]) -> BundleDraft:
        """Make a draft of a version and its other files: digest and `model.json` are filled in."""
        version = msgspec.structs.replace(version, address="", digest="")
        whole = {**files, MODEL: canonical(version)}
        version = msgspec.structs.replace(version, digest=digest_of_model(whole))
        return cls(version, {**whole, MODEL: canonical(version)})

    def trained_on(self, tables: Collection[str]) -> BundleDraft:
        """Return the draft with the digests of the tables it was trained on; its own digest stays."""
        version = msgspec.structs.replace(self.version, trained_on=tuple(tables))
        return BundleDraft(version, {**self.files, MODEL: canonical(version)})

    def bundle(self) -> Bundle:
        """Return it as an opened bundle that lives in memory."""
        return Bundle(Path(), self.version, self.files.__getitem__, tuple(self.files))


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: Its folder.
        version: The version it holds.
        read: Returns the bytes of one of its files, checked against the seal.
        names: Its files.
        decided: What was decided to answer for it; none: nothing was.
        beside: Files that this reads and the bundle does not hold.
    """

    path: Path
    version: ModelVersion
    read: Callable[[str], bytes]
    names: tuple[str, ...] = ()
    decided: Runtime | None = None
    beside: Beside | None = None
    _predictors: dict[int, Predictor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def signature(self) -> Signature:
        """What the model takes and answers."""
        return self.version.signature

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The classes in the type they had in the training data; empty for regression."""
        return tuple(self.json("labels.json", []))

    @cached_property
    def profile(self) -> dict[str, Any]:
        """What the data and the predictions looked like when the model was made; empty if nobody looked."""
        return dict(self.json("profile.json", {}))

    @cached_property
    def encoder(self) -> Encoder:
        """Turns rows into what the predictor takes."""
        return Encoder(self.signature)

    def json(self, name: str, default: Any = None) -> Any:
        """Return a JSON file of the bundle as plain data, or the default if it holds none of that name."""
        return msgspec.json.decode(self.read(name)) if name in self.names else default

    def encode(self, rows: Rows) -> Feeds:
        """Turn rows into feeds."""
        return self.encoder(rows)

    @property
    def runtime(self) -> Runtime:
        """What answers for it: what was decided, else our own form of its trees, else what it was exported to."""
        return self.decided or Runtime(name=usual(self.names, self.version.format))

    def by(self, runtime: Runtime, beside: Beside | None = None) -> Bundle:
        """Return the same bundle, answered for by a runtime that was decided on.

        Args:
            runtime: Which.
            beside: Files that it reads and the bundle does not hold.
        """
        return replace(self, decided=runtime, beside=beside, _predictors={})

    def predictor(self, threads: int = 1) -> Predictor:
        """Return the predictor; the model is read once for a number of threads.

        Args:
            threads: Threads of one prediction, where nothing was decided.

        Raises:
            ModelError: The model cannot be read here.
        """
        if self.decided is not None:
            threads = self.decided.threads
        if threads not in self._predictors:
            self._predictors[threads] = self._load(threads)
        return self._predictors[threads]

    def _load(self, threads: int) -> Predictor:
        names, read, more = self.names, self.read, self.beside
        if more is not None:
            names, read = more.names, more.read
        return load(self.runtime.name, names, read, task=self.signature.problem.task, threads=threads)


def open_bundle(
    folder: Path, *, trusted: Collection[bytes] | None = None, version: ModelVersion | None = None
) -> Bundle:
    """Open a bundle after checking it.

    Args:
        folder: The folder.
        trusted: Public keys of the signers that are believed; the seal must be by one of them and hold for every
            byte. None: the folder was made by the caller, and only the model's own digest is checked.
        version: What the ledger says the folder holds; it must be that model.

    Raises:
        Tampered: The seal does not hold, or the files are not the model they claim to be (`bundle-tampered`).
        ModelError: There is no bundle in the folder (`bundle-unreadable`).
    """
    if not (folder / MODEL).is_file():
        raise ModelError(
            "bundle-unreadable",
            f"`{folder}` holds no bundle: there is no `{MODEL}` in it",
            where=str(folder),
            hint="`modelyard run` makes one; `modelyard show models` says where",
        )
    read, names = _reader(folder, trusted)
    files = {name: read(name) for name in own_files(names)}
    try:
        found = msgspec.json.decode(files[MODEL], type=ModelVersion)
    except msgspec.DecodeError as error:
        raise ModelError(
            "bundle-unreadable", f"`{MODEL}` cannot be read: {error}", where=str(folder / MODEL)
        ) from error
    if digest_of_model(files) != found.digest:
        raise _not_it(folder, "its files are not those its `model.json` was written for")
    if version is not None and version.digest != found.digest:
        raise _not_it(folder, f"it holds model `{found.digest[:12]}`, not `{version.digest[:12]}`")
    return Bundle(folder, version or found, read, names)


def _reader(folder: Path, trusted: Collection[bytes] | None) -> tuple[Callable[[str], bytes], tuple[str, ...]]:
    if trusted is None:
        paths = (p for p in sorted(folder.rglob("*")) if p.is_file())
        names = tuple(p.relative_to(folder).as_posix() for p in paths)
        return (lambda name: (folder / name).read_bytes()), names
    from modelyard.security.seal import open_sealed, read_sealed

    manifest = open_sealed(folder, trusted)
    return (lambda name: read_sealed(folder, name, manifest)), tuple(manifest.files)


def _not_it(folder: Path, what: str) -> Tampered:
    return Tampered(
        "bundle-tampered",
        f"the bundle in `{folder.name}` is not what it says: {what}",
        where=str(folder),
        hint="do not use this bundle; take a fresh copy from where it was made",
    )
