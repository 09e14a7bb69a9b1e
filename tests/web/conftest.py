"""A seeded project that every test of the pages reads, and a client of its site."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from modelyard.store.local import LocalStore
from modelyard.web import Reader, create_app

if TYPE_CHECKING:
    from starlette.testclient import TestClient

HOME = "http://127.0.0.1:8500"


def _module(name: str) -> ModuleType:
    # Tests are imported by path, so a helper beside them is too.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def story() -> ModuleType:
    """The module that writes the seed."""
    return _module("seed")


@pytest.fixture(scope="session")
def seeded(story: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A project with a past; it is only read."""
    made = story.seed(tmp_path_factory.mktemp("web") / "income", rows=120)
    yield made
    made.store.close()


@pytest.fixture(scope="session")
def reader(seeded: Any) -> Reader:
    """The seeded store as pages see it."""
    return Reader(seeded.store, clock=seeded.clock)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A project that runs by itself, with everything that can happen to it; it is only read."""
    made = _module("engine").seed(tmp_path_factory.mktemp("engine") / "orders")
    yield made
    made.close()


@pytest.fixture(scope="session")
def engine_reader(engine: Any) -> Reader:
    """Its store as pages see it."""
    return Reader(engine.store, clock=engine.clock)


@pytest.fixture(scope="session")
def engine_client(engine: Any) -> Iterator[TestClient]:
    """A client of its site."""
    with client_of(engine.store, clock=engine.clock) as made:
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[LocalStore]:
    """A project in which nothing ran."""
    with LocalStore(tmp_path) as store:
        yield store


def client_of(store: Any, **options: Any) -> TestClient:
    """Return a client of the site over a store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette's client asks for a library that is not on the lock
        from starlette.testclient import TestClient
    return TestClient(create_app(store, **options), base_url=HOME, raise_server_exceptions=False)


@pytest.fixture
def open_client() -> Callable[..., TestClient]:
    """Opens a client of the site over a store."""
    return client_of


@pytest.fixture(scope="session")
def client(seeded: Any) -> Iterator[TestClient]:
    """A client of the seeded site."""
    with client_of(seeded.store, clock=seeded.clock) as made:
        yield made


@pytest.fixture
def empty_client(empty: LocalStore) -> Iterator[TestClient]:
    """A client of a site without a past."""
    with client_of(empty) as made:
        yield made
