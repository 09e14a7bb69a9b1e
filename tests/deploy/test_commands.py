"""The verbs around deployment, typed as a person would."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import polars as pl
import pytest
from tests.serving.authority import Authority

from modelyard.automation.systemd import server_unit
from modelyard.cli.main import main
from modelyard.deploy.aliases import move
from modelyard.records import ModelVersion
from modelyard.security.tokens import TokenBook, list_tokens
from modelyard.store import LocalStore

Yard = Callable[..., "subprocess.CompletedProcess[str]"]
# Verbs that ask an endpoint as it would be served.
ASKING = (
    ("loadtest", "--rate", "10", "--seconds", "5", "--endpoint"),
    ("drill", "--only", "kill", "--hold", "1"),
    ("contract", "openapi", "--endpoint"),
    ("contract", "request", "--endpoint"),
)


@pytest.fixture
def promoted(store: LocalStore, models: list[ModelVersion]) -> list[ModelVersion]:
    for model in models[:2]:
        move(store, "hours", "champion", model, reason="gate passed", actor="user:ana")
    return models


def test_promote_and_rollback(yard: Yard, store: LocalStore, promoted: list[ModelVersion]) -> None:
    third = promoted[2].digest[:12]
    done = yard("promote", third, "--reason", "because")
    assert (done.returncode, done.stdout) == (0, f"hours/champion -> linear {third} (because)\n")
    assert yard("promote", third).stdout == f"hours/champion is {third} already\n"
    back = yard("rollback", "--json")
    assert back.returncode == 0
    assert json.loads(back.stdout)["model"]["digest"] == promoted[1].digest
    assert yard("promote", third, "--alias", "challenger").returncode == 0
    assert third in yard("promote", "challenger").stdout
    assert third in yard("rollback").stdout


def test_each_earlier_model_is_named_once(yard: Yard, promoted: list[ModelVersion]) -> None:
    assert yard("rollback").returncode == 0
    said = yard("rollback", "--to", "zz").stderr
    assert [said.count(model.digest[:12]) for model in promoted] == [1, 1, 0]


def test_verbs_say_what_is_wrong(yard: Yard, store: LocalStore, models: list[ModelVersion]) -> None:
    for words, code, says in [
        (("rollback",), 2, "error[endpoint-not-found]"),
        (("serve",), 2, "error[endpoint-not-found]"),
        (("promote", "zzz"), 2, "error[model-not-found]"),
        (("predict", "x.csv"), 2, "error[endpoint-not-found]"),
    ]:
        done = yard(*words)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    move(store, "hours", "champion", models[0], reason="", actor="user:ana")
    assert yard("rollback").returncode == 1
    assert "error[no-previous]" in yard("rollback").stderr
    for words, says in [
        (("predict", "x.csv"), "error[file-not-found]"),
        (("predict", "x.csv", "-o", "y.txt"), "error[predict-output]"),
        (("token", "add"), "error[token-name]"),
        (("token", "add", "ana", "--role", "analist"), "did you mean `analyst`"),
        (("token", "revoke", "ana"), "error[token-not-found]"),
        (("serve", "hors"), "did you mean `hours`"),
        (("serve", "--processes", "0"), "error[processes-number]"),
        (("serve", "--processes", "-1"), "error[processes-number]"),
    ]:
        done = yard(*words)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_tokens_are_shown_once(yard: Yard, store: LocalStore) -> None:
    made = yard("token", "add", "ana", "--role", "viewer")
    assert re.fullmatch(r"yard_[0-9a-f]{8}_\S{43}\n", made.stdout)
    token = json.loads(yard("token", "add", "bob", "--json").stdout)
    assert (token["name"], token["role"]) == ("bob", "analyst")
    listed = yard("token", "list")
    assert re.search(r"^ana +viewer ", listed.stdout, re.MULTILINE)
    assert [json.loads(line)["name"] for line in yard("token", "list", "--json").stdout.splitlines()] == ["ana", "bob"]
    assert yard("token", "revoke", "ana").returncode == 0
    assert [t.name for t in list_tokens(store.root)] == ["bob"]
    events = [(e.kind, e.payload["name"]) for e in store.ledger.events(kinds=("token.added", "token.revoked"))]
    assert events == [("token.added", "ana"), ("token.added", "bob"), ("token.revoked", "ana")]
    secret = made.stdout.strip().split("_", 2)[2]
    whole = b"".join(p.read_bytes() for p in (store.root / ".modelyard").rglob("*") if p.is_file())
    assert secret.encode() not in whole


def test_token_may_have_a_role_at_some_endpoints_alone(
    yard: Yard, store: LocalStore, models: list[ModelVersion]
) -> None:
    move(store, "hours", "champion", models[0], reason="", actor="user:ana")
    made = yard("token", "add", "ana", "--role", "hors=analyst", "--role", "rides=viewer", "--json")
    assert json.loads(made.stdout)["roles"] == {"hors": "analyst", "rides": "viewer"}
    assert "did you mean `hours`?" in made.stderr
    assert yard("token", "add", "bob", "--role", "viewer", "--role", "hours=admin").returncode == 0
    listed = yard("token", "list").stdout
    assert re.search(r"^ana +hors=analyst, rides=viewer ", listed, re.MULTILINE)
    assert re.search(r"^bob +viewer, hours=admin ", listed, re.MULTILINE)
    book = TokenBook(store.root)
    [(who, role)] = [(one.name, one.role) for one in (book.find(json.loads(made.stdout)["token"], "else"),) if one]
    assert (who, role) == ("ana", "")
    for words, says in [
        (("--role", "viewer", "--role", "analyst"), "two roles at every endpoint"),
        (("--role", "a=viewer", "--role", "a=analyst"), "two roles at `a`"),
        (("--role", "a=analist"), "did you mean `analyst`"),
        (("--role", "a="), "there is no role ``"),
        (("--role", "=viewer"), "names no endpoint"),
    ]:
        done = yard("token", "add", "eve", *words)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert [t.name for t in list_tokens(store.root)] == ["ana", "bob"]


def test_several_files_share_a_port(
    tmp_path: Path, yard: Yard, store: LocalStore, promoted: list[ModelVersion], models: list[ModelVersion]
) -> None:
    move(store, "rides", "champion", models[0], reason="", actor="user:ana")
    for name in ("hours", "rides"):
        (tmp_path / f"{name}.yaml").write_text(f"project: {name}\ndata: {{d: {{from: d.csv}}}}\nmodel: {{target: y}}\n")
    for words, says in [
        (("serve", "-f", "hours.yaml", "-f", "./hours.yaml"), "is given twice"),
        (("serve", "hours", "-f", "hours.yaml", "-f", "rides.yaml"), "each file names its own endpoint"),
        (("serve", "-f", "hours.yaml", "-f", "none.yaml"), "none.yaml"),
    ]:
        done = yard(*words)
        assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    # A file that shares its folder with others means its own endpoint.
    (tmp_path / "modelyard.yaml").write_text((tmp_path / "hours.yaml").read_text())
    unit = yard("serve", "--systemd", "-").stdout
    assert f"-f {tmp_path}/modelyard.yaml hours " in unit
    assert "`rides` has pointed at one model" in yard("rollback", "-f", "rides.yaml").stderr.replace("/champion", "")
    token = yard("token", "add", "ana").stdout.strip()
    line = [sys.executable, "-m", "modelyard.cli.main", "serve", "--port", "0", "-f", "hours.yaml", "-f", "rides.yaml"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    urls = {}
    while len(urls) < 2:
        words = process.stderr.readline()
        assert words, urls
        if found := re.search(r"^ready (\S+) endpoint=(\S+) ", words):
            urls[found[2]] = found[1]
    assert urls["rides"] == f"{urls['hours']}/models/rides"
    for name, url in urls.items():
        head = {"authorization": f"Bearer {token}"}
        [value] = httpx.post(f"{url}/predict", json={"x": 4}, headers=head).json()["predictions"]
        assert value == {"value": 8.0 if name == "hours" else 4.0}
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 0, rest
    assert re.findall(r"stopped endpoint=(\S+) requests=(\d)", rest) == [("hours", "1"), ("rides", "1")]
    unit = yard("serve", "-f", "hours.yaml", "-f", "rides.yaml", "--systemd", "-").stdout
    assert f"serve -f {tmp_path}/hours.yaml -f {tmp_path}/rides.yaml" in unit


def test_serve_takes_no_other_file_for_the_one_that_declares_the_endpoint(
    tmp_path: Path, yard: Yard, store: LocalStore, promoted: list[ModelVersion], models: list[ModelVersion]
) -> None:
    """The guards, limits and roles of an endpoint hold, or it is not served."""
    move(store, "rides", "champion", models[0], reason="", actor="user:ana")
    text = "project: {}\ndata: {{d: {{from: d.csv}}}}\nmodel: {{target: y}}\ndeploy: {{requests: {{redact: [x]}}}}\n"
    rides = tmp_path / "rides.yaml"
    rides.write_text(text.format("rides"))
    (tmp_path / "compose.yml").write_text("services: {rides: {}}\n")
    for words, code, hint in [
        (("serve", "rides"), "endpoint-other-file", "-f rides.yaml"),
        (("serve", "rides", "--systemd", "-"), "endpoint-other-file", "-f rides.yaml"),
        *(((*words, "rides"), "endpoint-other-file", "-f rides.yaml") for words in ASKING),
        (("serve", "hours", "-f", "huors.yaml"), "spec-not-found", "-f"),
        (("loadtest", "-f", "huors.yaml", "--endpoint", "hours"), "spec-not-found", "-f"),
        (("contract", "openapi", "-f", "huors.yaml", "--endpoint", "hours"), "spec-not-found", "-f"),
    ]:
        done = yard(*words)
        assert done.returncode == 2, done.stderr
        assert f"error[{code}]" in done.stderr
        assert hint in done.stderr
    # The file of the folder declares another endpoint; so does one that names it and is wrong.
    (tmp_path / "modelyard.yaml").write_text(text.format("hours"))
    for verb in (("serve", "rides", "--systemd", "-"), *((*words, "rides") for words in ASKING)):
        done = yard(*verb)
        assert done.returncode == 2, done.stderr
        assert "error[endpoint-other-file]" in done.stderr
    assert yard("contract", "openapi", "--endpoint", "rides", "-f", "rides.yaml").returncode == 0
    rides.write_text(text.format("rides") + "modle: {}\n")
    assert "error[endpoint-other-file]" in yard("serve", "rides", "--systemd", "-").stderr
    assert "serve -f" in yard("serve", "hours", "--systemd", "-").stdout
    # What no file declares is served as before, and said.
    rides.unlink()
    (tmp_path / "modelyard.yaml").unlink()
    done = yard("serve", "rides", "--systemd", "-")
    assert (done.returncode, "no guards, limits or roles" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    "words", [("client", "-o", "web/"), ("client", "-o", "there", "--language", "typescript"), ("init", "billing")]
)
@pytest.mark.parametrize("space", [0, 1])
def test_a_contract_on_a_full_disk_leaves_nothing(
    tmp_path: Path,
    store: LocalStore,
    promoted: list[ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    space: int,
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before, real, count = sorted(tmp_path.rglob("*")), os.fsync, []

    def full(fd: int) -> None:
        count.append(fd)
        if len(count) > space:
            raise OSError(28, "No space left on device")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        ends = main(["contract", *words])
    assert count
    if len(count) <= space:
        assert ends == 0  # it is one file
        return
    assert ends == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["contract", *words]) == 0


def test_serve_becomes_the_server(tmp_path: Path, yard: Yard, store: LocalStore, promoted: list[ModelVersion]) -> None:
    line = [sys.executable, "-m", "modelyard.cli.main", "serve", "--port", "0"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said, url = "", None
    while not url:
        words = process.stderr.readline()
        assert words, said
        said += words
        url = re.search(r"^ready (http://127\.0\.0\.1:\d+) ", words)
    assert f"hours/champion is linear {promoted[1].digest[:12]} (gate passed)" in said
    # What is kept (a log, a journal) holds no token, but says how one is made.
    assert "yard_" not in said
    assert "modelyard token add NAME --role analyst" in said
    token = yard("token", "add", "ana").stdout.strip()
    until = time.monotonic() + 20
    while True:
        answer = httpx.post(f"{url[1]}/predict", json={"x": 4}, headers={"authorization": f"Bearer {token}"})
        if answer.status_code != 401 or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert answer.json()["predictions"] == [{"value": 8.0}]
    # The pid that was started is the server itself.
    os.kill(process.pid, signal.SIGTERM)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 0, rest
    assert "requests=1 rows=1 logged=1 held=0" in rest


def test_the_unit_of_a_server_is_one_that_systemd_takes_and_serves(
    tmp_path: Path, yard: Yard, store: LocalStore, promoted: list[ModelVersion]
) -> None:
    options = ["--port", "0", "--grpc-port", "0", "--processes", "2"]
    printed = yard("serve", *options, "--systemd", "-").stdout
    assert "modelyard-serve-hours.env" in printed
    file = tmp_path / "modelyard-serve-hours.service"
    written = yard("serve", *options, "--systemd", str(file))
    assert (written.returncode, written.stdout) == (0, f"{file}\n"), written.stderr
    assert file.read_text() == printed
    assert f"systemctl --user enable --now {file}" in written.stderr
    values = dict(line.partition("=")[::2] for line in printed.splitlines() if "=" in line)
    assert values["ReadWritePaths"] == str(store.root)
    command = shlex.split(values["ExecStart"])
    process = subprocess.Popen(
        command, cwd=values["WorkingDirectory"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = next(line for line in process.stderr if "http://" in line)
    assert "grpc=" in said
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here; the text was checked")
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    verified = subprocess.run(
        [analyze, "verify", "--user", str(file)], env=env, capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_no_unit_is_written_for_certificates_that_no_server_starts_with(
    tmp_path: Path, yard: Yard, promoted: list[ModelVersion]
) -> None:
    cert, key = Authority(tmp_path, "ca").sign("server")
    place = (Path(cert).relative_to(tmp_path), Path(key).relative_to(tmp_path))
    unit = yard("serve", "--tls-cert", str(place[0]), "--tls-key", str(place[1]), "--systemd", "-")
    assert f"--tls-cert {cert} --tls-key {key}" in unit.stdout, unit.stderr
    for wrong, says in (
        (["--tls-cert", cert], "--tls-key"),
        (["--tls-key", key], "--tls-cert"),
        (["--client-ca", cert], "--tls-cert"),
        (["--tls-cert", "/nope", "--tls-key", key], "`/nope` is not there"),
        (["--tls-cert", key, "--tls-key", cert], "no PEM"),
    ):
        file = tmp_path / "made.service"
        done = yard("serve", *wrong, "--systemd", str(file))
        assert (done.returncode, "error[tls-unusable]" in done.stderr) == (2, True), (wrong, done.stderr)
        assert says in done.stderr
        assert not file.exists()


def test_a_word_without_a_letter_stays_one_in_a_unit() -> None:
    text = server_unit("modelyard-serve-hours.service", [Path("/a b")], ["/bin/serve", "--host", "", "x;y"])
    assert 'ExecStart=/bin/serve --host "" "x;y"\n' in text
    assert 'ReadWritePaths="/a b"\n' in text


def test_serve_keeps_ctrl_c_back_for_the_server_that_it_becomes(
    tmp_path: Path, promoted: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[set[int]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda *line: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    try:
        main(["serve", "--port", "0"])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert [signal.SIGINT in mask for mask in masks] == [True]


def test_on_a_terminal_the_first_token_is_made_once(tmp_path: Path, promoted: list[ModelVersion]) -> None:
    line = [sys.executable, "-m", "modelyard.cli.main", "serve", "--port", "0"]

    def said() -> str:
        ours, terminal = pty.openpty()
        process = subprocess.Popen(line, cwd=tmp_path, stderr=terminal)
        os.close(terminal)
        words = b""
        try:
            while b"ready http" not in words:
                words += os.read(ours, 4096)
        finally:
            process.terminate()
            process.wait(20)
            os.close(ours)
        return words.decode()

    first = said()
    assert re.search(r"token of `local` \(analyst\).*?: yard_[0-9a-f]{8}_\S{43}", first)
    assert "modelyard token add" in first
    assert "yard_" not in said()


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_predict_answers_files(tmp_path: Path, yard: Yard, promoted: list[ModelVersion], kind: str) -> None:
    frame = pl.DataFrame({"id": ["007", "b", "c"], "x": [1, 2, 3]})
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[kind](source)
    done = yard("predict", source.name, "-o", target.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[kind](target)
    assert read["prediction"].to_list() == pytest.approx([2.0, 4.0, 6.0])
    assert read.columns == ["id", "x", "prediction"]


def test_predict_reads_and_writes_streams(yard: Yard, promoted: list[ModelVersion]) -> None:
    done = yard("predict", "-", given="x,name\n1.5,ä\n-2,b\n")
    assert done.returncode == 0, done.stderr
    assert pl.read_csv(io.StringIO(done.stdout))["prediction"].to_list() == pytest.approx([3.0, -4.0])
    lines = yard("predict", "-", "--json", given='{"x": 1}\n{"x": 2}\n').stdout.splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == pytest.approx([2.0, 4.0])
    assert yard("predict", "-", given="x\n").stdout == "x,prediction\n"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("y\n1\n", "model-column-missing"),
        ("x\nn.n.\n", "predict-unreadable"),
        ("x\n1\n2,3\n", "predict-unreadable"),
        ("x,prediction\n1,2\n", "predict-column-taken"),
        ("", "data-empty-file"),
        ("{", "predict-unreadable"),
        ('{"x": "a"}\n', "model-not-a-number"),
    ],
)
def test_predict_says_what_it_cannot_read(yard: Yard, promoted: list[ModelVersion], given: str, code: str) -> None:
    done = yard("predict", "-", given=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error[{code}]" in done.stderr
