"""Objects are told apart by their listing, and one that was fired for is not fired for again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.automation.triggers.conftest import Make, changes

from modelyard._kit.errors import UserError
from modelyard.automation.triggers import BlobsTrigger, Common
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import Store


def kind(name: str, section: OwnTrigger, root: Path, store: Store) -> Common:
    return BlobsTrigger(name, section, store)


@pytest.fixture
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bucket")


def test_objects_come_change_and_go(bench: Make, bucket: Path) -> None:
    (bucket / "old.csv").write_text("1")
    b = bench(kind, blobs=f"file://{bucket}/", on=["created", "updated", "deleted"])
    assert b.look() == []
    (bucket / "x").mkdir()
    (bucket / "x" / "a.csv").write_text("1")
    address = f"file://{bucket}/x/a.csv"
    assert changes(b.look()) == [[(address, "created")]]
    assert b.look() == []
    (bucket / "x" / "a.csv").write_text("22")
    (bucket / "old.csv").unlink()
    assert changes(b.look()) == [[(f"file://{bucket}/old.csv", "deleted"), (address, "updated")]]
    b.restart()
    assert b.look() == []


def test_each_object_and_a_pattern(bench: Make, bucket: Path) -> None:
    for name in ("2026/01/a.csv", "2026/01/a.txt", "2026/b.csv", "2025/c.csv"):
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_text("1")
    b = bench(kind, blobs=f"file://{bucket}/2026/**/*.csv", each=True, existing=True)
    assert changes(b.look()) == [
        [(f"file://{bucket}/2026/01/a.csv", "created")],
        [(f"file://{bucket}/2026/b.csv", "created")],
    ]
    b.restart(blobs=f"file://{bucket}/20*/*.csv")
    assert changes(b.look()) == [[(f"file://{bucket}/2025/c.csv", "created")]]


def test_a_store_that_cannot_be_listed_takes_nothing_with_it(bench: Make, bucket: Path) -> None:
    (bucket / "a.csv").write_text("1")
    b = bench(kind, blobs=f"file://{bucket}/", on=["deleted"])
    b.look()
    aside = bucket.with_name("aside")
    bucket.rename(aside)
    b.restart()
    with pytest.raises(UserError) as error:
        b.look()
    assert error.value.code == "trigger-blobs-unreachable"
    assert "\n" not in error.value.problem.message
    aside.rename(bucket)
    b.restart()
    assert b.look() == []
    (bucket / "a.csv").unlink()
    assert changes(b.look()) == [[(f"file://{bucket}/a.csv", "deleted")]]


@pytest.fixture
def azurite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A container of Azurite, the emulator of Azure's object store: `npm install azurite`, found on the PATH."""
    from obstore.store import AzureStore

    program = os.environ.get("AZURITE", "") or shutil.which("azurite-blob")
    if not program:
        pytest.skip("no azurite-blob on the PATH; `npm install -g azurite`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "azurite"
    line = [program, "--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        # The account and key that the emulator is known by; they open nothing else.
        account = "devstoreaccount1"
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        endpoint = f"http://127.0.0.1:{port}/{account}"
        for name, value in {
            "AZURE_STORAGE_ACCOUNT_NAME": account,
            "AZURE_STORAGE_ACCOUNT_KEY": key,
            "AZURE_ENDPOINT": endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }.items():
            monkeypatch.setenv(name, value)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        make_container(endpoint, account, key)
        yield lambda: AzureStore("inbox", client_options={"allow_http": True})
        server.terminate()


def make_container(endpoint: str, account: str, key: str) -> None:
    """Make the container `inbox`, which obstore cannot: one request, signed as the service wants it."""
    import base64
    import hashlib
    import hmac
    import urllib.request
    from email.utils import formatdate

    when = formatdate(usegmt=True)
    signed = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{when}\nx-ms-version:2021-08-06\n"
    signed += f"/{account}/{account}/inbox\nrestype:container"
    digest = hmac.digest(base64.b64decode(key), signed.encode(), hashlib.sha256)
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{endpoint}/inbox?restype=container",
        method="PUT",
        headers={
            "x-ms-date": when,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey {account}:{base64.b64encode(digest).decode()}",
        },
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


@pytest.mark.cluster
def test_objects_of_azure(bench: Make, azurite: Callable[..., Any]) -> None:
    import obstore

    store = azurite()
    obstore.put(store, "other/z.csv", b"1")
    b = bench(kind, blobs="az://inbox/in/", on=["created", "updated", "deleted"], each=True)
    assert b.look() == []
    obstore.put(store, "in/a.csv", b"1")
    obstore.put(store, "in/b.csv", b"1")
    assert changes(b.look()) == [[("az://inbox/in/a.csv", "created")], [("az://inbox/in/b.csv", "created")]]
    obstore.put(store, "in/a.csv", b"1")
    obstore.delete(store, "in/b.csv")
    assert changes(b.look()) == [[("az://inbox/in/a.csv", "updated")], [("az://inbox/in/b.csv", "deleted")]]
    b.restart()
    assert b.look() == []
    b.restart(blobs="az://nowhere/")
    with pytest.raises(UserError) as error:
        b.look()
    assert error.value.code == "trigger-blobs-unreachable"
    assert "Eby8" not in str(error.value)
    with pytest.raises(UserError) as again:
        b.look()
    assert str(again.value) == str(error.value)
