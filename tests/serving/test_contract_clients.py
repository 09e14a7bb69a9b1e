"""The clients that are made of a description: they fit their type checkers, and talk to a real server."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.inference import BundleDraft
from modelyard.records import Feature, Problem, Signature
from modelyard.serving.contract.clients import client_files
from modelyard.serving.contract.description import description
from modelyard.serving.contract.schemas import Endpoint
from modelyard.serving.limits import Limits

from .conftest import (  # noqa: TID252 - the suite is not installed
    Server,
    draft,
    mixed_answer,
    mixed_bundle,
    regression_bundle,
)

# What a language might take for its own, and names that would be one if they were cleaned.
AWKWARD = ("class", "a b", "a-b", "a_b", 'quo"te', "it's", "ünï \u2028", "*/ alert() //", "@VERSION@", "\\n", '"""')


def files_of(made: BundleDraft, language: str, endpoint: str = "") -> dict[str, str]:
    bundle = made.bundle()
    return client_files(description(Endpoint.of(bundle, endpoint or bundle.version.name, Limits())), language)


def awkward_bundle() -> BundleDraft:
    number = {"type": "number", "source": "Int64", "low": 0, "high": 1}
    features = [Feature(name=name, **number) for name in AWKWARD]
    features.append(Feature(name="*/", type="category", source="String", categories=("*/", 'x"\n', "\\")))
    problem = Problem(task="multiclass", target="y", classes=("0", "1", "*/"))
    return draft("awk.ward", Signature(features=tuple(features), problem=problem), b"", b'[0, true, "*/"]')


def lay_out(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(iter(files))


def load(files: dict[str, str], folder: Path) -> Any:
    """Import a Python client."""
    spec = importlib.util.spec_from_file_location("made_client", lay_out(files, folder))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_the_same_model_has_the_same_client_which_names_its_version(language: str) -> None:
    made = mixed_bundle()
    files = files_of(made, language)
    assert files == files_of(made, language)
    text = next(iter(files.values()))
    assert made.version.digest[:12] in text.splitlines()[language == "typescript"]
    assert text.isascii()


def test_a_python_client_and_a_real_server(served: Server, tmp_path: Path) -> None:
    module = load(files_of(mixed_bundle(), "python"), tmp_path)
    row = {"age": 30, "income": 500.5, "city": "rome"}
    with module.Client(served.url, served.tokens["analyst"], timeout=10, retries=0) as client:
        assert client.health()
        found = client.predict(row)
        assert found["probabilities"]["yes"] == pytest.approx(mixed_answer(30, 500.5, "rome"), rel=1e-5)
        many = client.predict_many([row, {**row, "age": 17}], request_id="mine-1")
        assert (many["id"], len(many["predictions"]), many["warnings"][0]["column"]) == ("mine-1", 2, "age")
        joined = client.feedback("mine-1/0", "yes")
        assert joined["joined"] + joined["unknown"] + joined["unchecked"] == 1
        inputs = [
            {"name": "numeric", "datatype": "FP32", "shape": [1, 2], "data": [30, 500.5]},
            {"name": "categorical", "datatype": "BYTES", "shape": [1, 1], "data": ["rome"]},
        ]
        answer = client.infer(inputs, outputs=["label"])
        assert [(one["name"], one["data"]) for one in answer["outputs"]] == [("label", [found["label"]])]
        assert client.metadata()["name"] == module.ENDPOINT == "credit"
        with pytest.raises(module.BadRequest) as wrong:
            client.predict({"age": 30})
        assert (wrong.value.status, wrong.value.code) == (400, "column-missing")
        assert wrong.value.id
        with pytest.raises(module.BadRequest) as wrong:
            client.infer([])
        assert wrong.value.code != "not-the-server"
        assert wrong.value.message
    with module.Client(served.url, "yard_0_no") as stranger, pytest.raises(module.Denied) as wrong:
        stranger.predict(row)
    assert wrong.value.code == "token-unknown"


@pytest.fixture
def moody() -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """A server that is too busy for each first time, and what it was asked on which connection."""
    asked: list[tuple[str, int]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            first = not any(path == self.path for path, _ in asked)
            asked.append((self.path, self.client_address[1]))
            body = {"error": {"code": "too-many-requests", "message": "busy", "id": "r"}}
            data = json.dumps(body if first else {"id": "r", "model": "m", "predictions": [{"value": 1}]}).encode()
            self.send_response(429 if first else 200)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_threads_that_come_and_go_leave_no_connections(
    moody: tuple[str, list[tuple[str, int]]], tmp_path: Path
) -> None:
    url, asked = moody
    module = load(files_of(regression_bundle(), "python"), tmp_path)
    with module.Client(url, retries=1) as client:
        for _ in range(5):
            thread = threading.Thread(target=client.predict, args=({"a": 1, "b": 2},))
            thread.start()
            thread.join()
    assert len(asked) == 6
    assert len({port for _, port in asked}) == 1


def test_a_python_client_tries_again_only_what_changes_nothing_on_one_connection(
    moody: tuple[str, list[tuple[str, int]]], tmp_path: Path
) -> None:
    url, asked = moody
    module = load(files_of(regression_bundle(), "python"), tmp_path)
    with module.Client(url, retries=1) as client:
        assert client.predict({"a": 1, "b": 2}) == {"value": 1}
        with pytest.raises(module.Busy) as busy:
            client.feedback("x", 1)
    assert (busy.value.status, busy.value.code, busy.value.id) == (429, "too-many-requests", "r")
    assert [path for path, _ in asked] == ["/predict", "/predict", "/feedback"]
    assert len({port for _, port in asked}) == 1
    with module.Client("http://127.0.0.1:9", retries=0, timeout=1) as nobody:
        assert not nobody.health()
        with pytest.raises(module.Unreachable):
            nobody.predict({"a": 1, "b": 2})
    with pytest.raises(ValueError, match="no address"):
        module.Client("ftp://x")


PAGE = (502, {"Content-Type": "text/html"}, b"<html><h1>502 Bad Gateway</h1></html>")
LATE = (504, {"Content-Type": "text/html"}, b"")
LATER = (429, {"Retry-After": "1"}, b'{"error": {"code": "too-many-requests", "message": "busy", "id": "r"}}')
GIVEN = (200, {}, b'{"id": "r", "model": "m", "predictions": [{"value": 1}]}')
# What is sent never, and what comes a byte at a time: of the body, of the headers.
NEVER: tuple[int, dict[str, str], bytes] = (0, {}, b"")
SLOW_BODY, SLOW_HEAD = (-200, {}, GIVEN[2] + b" " * 300), (-1, {}, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 90)


class Script:
    """A server that answers as it is told, the last answer again and again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[str] = []
        self.over = threading.Event()
        self.url = ""

    def says(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers, self.asked = list(answers), []

    def take(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, data = made.take(self.path)
            if not status:
                made.over.wait(20)
                self.close_connection = True
                return
            if status != -1:
                self.send_response(abs(status))
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
            self.close_connection = status < 0
            try:
                for at in range(len(data)) if status < 0 else ():
                    self.wfile.write(data[at : at + 1])
                    if made.over.wait(0.02):
                        return
            except OSError:
                return
            if status > 0:
                self.wfile.write(data)

        do_GET = do_POST  # noqa: N815 - its name

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield made
        made.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answers", "kind", "seconds"),
    [
        # A wait that would end after it is not begun.
        ([LATER], "Busy", (0.0, 0.5)),
        ([NEVER], "Unreachable", (0.5, 1.0)),
        # The second try has what the first one left.
        ([(503, {}, b"{}"), NEVER], "Unreachable", (0.5, 1.0)),
        ([SLOW_BODY], "Unreachable", (0.5, 1.0)),
        ([SLOW_HEAD], "Unreachable", (0.5, 1.0)),
    ],
)
def test_a_call_of_a_python_client_ends_with_its_timeout(
    script: Script, tmp_path: Path, answers: list[Any], kind: str, seconds: tuple[float, float]
) -> None:
    module = load(files_of(regression_bundle(), "python"), tmp_path)
    script.says(*answers)
    with module.Client(script.url, timeout=0.6) as client:
        began = time.monotonic()
        with pytest.raises((module.Busy, module.Unreachable)) as caught:
            client.predict({"a": 1, "b": 2})
        took = time.monotonic() - began
        assert len(script.asked) == len(answers)
        assert seconds[0] <= took < seconds[1], took
        assert type(caught.value).__name__ == kind
        # And what follows is not the worse for it.
        script.says(GIVEN)
        assert client.predict({"a": 1, "b": 2}) == {"value": 1}


def test_a_python_client_tries_again_what_a_proxy_could_not_hand_on(script: Script, tmp_path: Path) -> None:
    module = load(files_of(regression_bundle(), "python"), tmp_path)
    row = {"a": 1, "b": 2}
    with module.Client(script.url, timeout=5, retries=2) as client:
        script.says(PAGE, LATE, GIVEN)
        assert client.predict(row) == {"value": 1}
        assert len(script.asked) == 3
        script.says(PAGE)
        with pytest.raises(module.Unreachable, match="something between caller and server answered 502") as caught:
            client.predict(row)
        assert (caught.value.status, caught.value.code, len(script.asked)) == (502, "not-the-server", 3)
        script.says(LATE)
        # It changes something, so it is not sent again.
        with pytest.raises(module.Unreachable):
            client.feedback("x", 1)
        assert not client.health()
        assert script.asked == ["/feedback", "/v2/health/ready"]
        script.says((200, {}, b"<html>log in</html>"))
        with pytest.raises(module.ApiError, match="answered 200"):
            client.predict(row)
        assert len(script.asked) == 1


def test_awkward_names_stay_as_they_are(tmp_path: Path) -> None:
    files = files_of(awkward_bundle(), "python")
    assert next(iter(files)) == "awk_ward_client/__init__.py"
    module = load(files, tmp_path)
    assert set(module.Row.__annotations__) == {*AWKWARD, "*/"}
    assert module.VERSION != "@VERSION@"


@pytest.mark.slow
@pytest.mark.parametrize("made", [mixed_bundle, regression_bundle, awkward_bundle])
def test_a_python_client_is_typed_strictly(made: Callable[[], BundleDraft], tmp_path: Path) -> None:
    package = lay_out(files_of(made(), "python"), tmp_path).parent
    line = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), package.name]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    if made is mixed_bundle:
        row = '{"age": "x", "city": None, "income": 1}'
        use = f'from credit_client import Client\n\nClient("http://x").predict({row})\n'
        (tmp_path / "use.py").write_text(use)
        done = subprocess.run([*line[:-1], "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert 'TypedDict item "age" has type "float"' in done.stdout


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TypeScript compiler, in a folder of its own; skips aloud where it cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no node and npm on this machine")
    folder = tmp_path_factory.mktemp("typescript")
    line = [npm, "install", "--silent", "--no-audit", "--no-fund", "typescript"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
    if done.returncode or not compiler.exists():
        pytest.skip(f"npm cannot install typescript: {done.stderr[-200:]}")
    return compiler


def compiled(typescript: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    settings = ["--strict", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler"]
    settings += ["--lib", "es2022,dom", "--types", "", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes"]
    line = ["node", str(typescript), *settings, *(path.name for path in folder.glob("*.ts"))]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("made", [regression_bundle, awkward_bundle])
def test_a_typescript_client_is_typed_strictly(
    made: Callable[[], BundleDraft], typescript: Path, tmp_path: Path
) -> None:
    lay_out(files_of(made(), "typescript"), tmp_path)
    done = compiled(typescript, tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_typescript_client_and_a_real_server(served: Server, typescript: Path, tmp_path: Path) -> None:
    lay_out(files_of(mixed_bundle(), "typescript"), tmp_path)
    (tmp_path / "wrong.ts").write_text(
        'import { Row } from "./credit-client.js";\nexport const row: Row = { age: "x", city: null, income: 1 };\n'
    )
    done = compiled(typescript, tmp_path)
    assert done.returncode
    assert "Type 'string' is not assignable to type 'number'" in done.stdout
    (tmp_path / "wrong.ts").unlink()
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(
        """
import { BadRequest, Client, Denied, ENDPOINT, Row } from "./credit-client.js";

declare const process: { argv: string[] };

const url = process.argv[2] ?? "";
const client = new Client(url, process.argv[3] ?? "");
const row: Row = { age: 30, income: 500.5, city: "rome" };
const found = await client.predict(row);
const many = await client.predictMany([row, { ...row, age: 17 }], "mine-2");
const tensors = await client.infer([
  { name: "numeric", datatype: "FP32", shape: [1, 2], data: [30, 500.5] },
  { name: "categorical", datatype: "BYTES", shape: [1, 1], data: ["rome"] },
], ["label"]);
const feedback = await client.feedback("mine-2/0", "yes");
const codes: string[] = [];
try {
  await client.predict({ age: 30 } as Row);
} catch (error) {
  if (error instanceof BadRequest) codes.push(error.code);
}
try {
  await new Client(url, "yard_0_no").predict(row);
} catch (error) {
  if (error instanceof Denied) codes.push(error.code);
}
const healthy = [await client.health(), await new Client("http://127.0.0.1:9").health()];
const named = (await client.metadata()).name === ENDPOINT;
console.log(JSON.stringify({ found, many, tensors, feedback, codes, healthy, named }));
"""
    )
    done = compiled(typescript, tmp_path)
    assert done.returncode == 0, done.stdout
    line = ["node", "use.js", served.url, served.tokens["analyst"]]
    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(ran.stdout)
    assert said["found"]["probabilities"]["yes"] == pytest.approx(mixed_answer(30, 500.5, "rome"), rel=1e-5)
    assert (said["many"]["id"], said["many"]["warnings"][0]["column"]) == ("mine-2", "age")
    assert said["tensors"]["outputs"][0]["data"] == [said["found"]["label"]]
    assert said["feedback"]["unknown_ids"] in ([], ["mine-2/0"])
    assert (said["codes"], said["healthy"], said["named"]) == (["column-missing", "token-unknown"], [True, False], True)


@pytest.mark.slow
def test_a_call_of_a_typescript_client_ends_with_its_timeout(script: Script, typescript: Path, tmp_path: Path) -> None:
    lay_out(files_of(regression_bundle(), "typescript"), tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    name = next(tmp_path.glob("*.ts")).stem
    (tmp_path / "use.ts").write_text(
        f"""
import {{ ApiError, Client }} from "./{name}.js";

declare const process: {{ argv: string[] }};

const client = new Client(process.argv[2] ?? "", "", {{ timeout: 600.5, retries: 2 }});
const began = performance.now();
let told: unknown[] = [];
try {{
  told = [(await client.predict({{ a: 1, b: 2 }}) as {{ value: number }}).value];
}} catch (error) {{
  if (error instanceof ApiError) told = [error.name, error.status, error.code, error.message];
  else throw error;
}}
const took = performance.now() - began;
console.log(JSON.stringify({{ told, took, healthy: await client.health().catch(String) }}));
"""
    )
    done = compiled(typescript, tmp_path)
    assert done.returncode == 0, done.stdout

    def said(*answers: tuple[int, dict[str, str], bytes]) -> Any:
        script.says(*answers)
        line = ["node", "use.js", script.url]
        ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
        return json.loads(ran.stdout)

    found = said(LATER)
    assert (found["told"][:2], len(script.asked), found["took"] < 500) == (["Busy", 429], 2, True)
    for never in ([NEVER], [(503, {}, b"{}"), NEVER], [SLOW_BODY], [SLOW_HEAD]):
        found = said(*never)
        assert found["told"][0] == "Unreachable"
        assert 500 < found["took"] < 1000, found
    between = "something between caller and server answered 502"
    found = said(PAGE)
    assert (found["told"], len(script.asked), found["healthy"]) == (
        ["Unreachable", 502, "not-the-server", between],
        4,
        False,
    )
    assert said(PAGE, LATE, GIVEN)["told"] == [1]
    assert said((200, {}, b"<html>log in</html>"))["told"] == ["ApiError", 200, "not-the-server", between[:-3] + "200"]
