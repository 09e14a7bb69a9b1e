"""What one prediction over HTTP costs, with tokens, all guards and the request log on, beside other servers.

The program starts everything itself on loopback: a sealed bundle (LightGBM, 100 trees on 30 numbers),
`modelyard.serving`, and each peer with the same model in ONNX Runtime (see `_peers`). Where a figure does not say
otherwise, our server has every guard that can be declared for the model (`GUARDS` of `_serving`); they pass all rows.
Load comes from wrk: 32 connections, one row a request, rows that differ. Ours and a peer are asked in turns. CPU is
that of all processes of a server, from the kernel; only `rps`, `p99` and `start_s` are wall time, of which a figure is
the median over the pairs.

Of CPU a figure is the lower quartile over the rounds, of both sides of a ratio: what else runs on the same silicon
adds to it. (On a virtual machine the same bytes are decoded in 1.35 ms of CPU or in 2.2, by seconds, and ONNX Runtime
hardly notices.) `..._median` is what a run would have said without that.

`--only fastapi,triton` measures these peers only (`--only ours`: none), `--quick` a few short rounds with these two.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _bench import emit
from _peers import PEERS, Peer, beside, versions
from _serving import (
    CONNECTIONS,
    FEATURES,
    GUARDS,
    INFER,
    Load,
    NotAnswered,
    NotServed,
    Target,
    apart,
    bundle,
    cpu_s,
    declared,
    encoded,
    found_by_guards,
    load,
    matrix_of,
    named,
    pss_mb,
    rows,
    served,
    tensors,
    tree,
)
from modelyard.inference.kernels import compiled

if TYPE_CHECKING:
    from modelyard.inference import Predictor

# What is wanted of a row beside a peer: times its rate at least, times its p99 at most.
LIMITS = {"fastapi": (5.0, 1.0), "triton": (2.5, 1.0)}
# The limit of 18 us was set beside these figures of the same servers: a machine on which they cost more is slower.
ROW_US = 18
REFERENCE_US = {"bare": 12, "fastapi": 108, "triton": 66}
BATCH = 1000
# Those that look at the answers of a group, and at who asked for them, beside the others.
LOOKS = ("checks", "extraction")

Middle = Callable[[Iterator[float]], float]
middle: Middle = statistics.median


def quiet(values: Iterable[float]) -> float:
    """Return the lower quartile: a quarter of the rounds was quieter."""
    return statistics.quantiles(values, n=4, method="inclusive")[0]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: Rounds beside a peer that is quick, or of a kind of batch.
        slow_rounds: Rounds beside one that is not.
        seconds: Seconds of a round.
        batches: Batches in a round, of 1,000 rows each.
        starts: How often our server is started.
    """

    rounds: int
    slow_rounds: int
    seconds: float
    batches: int
    starts: int


WHOLE = Effort(rounds=12, slow_rounds=4, seconds=1, batches=40, starts=5)
QUICK = Effort(rounds=4, slow_rounds=2, seconds=1, batches=15, starts=2)


def beside_peer(peer: Peer, ours: Target, several: Target, model: Path, effort: Effort) -> list[Load]:
    """Print what a peer does beside us, and return our own rounds.

    Args:
        peer: The peer.
        ours: Our server, one process.
        several: The same with a process for each of two cores, beside a peer whose threads take as many.
        model: The model's file.
        effort: How much is measured.
    """
    project = model.parent
    ran = f"{versions(peer)}: {peer.said}"
    # A peer that speaks the open protocol is asked as we are, byte for byte.
    same = replace(ours, path=INFER, form=tensors, headers=dict(ours.headers))
    count = effort.rounds if peer.quick else effort.slow_rounds
    pairs: list[tuple[Load, Load, Load]] = []
    shared: list[float] = []
    with beside(peer, model) as other:
        load(other, project, 1)
        for _ in range(count):
            mine = load(ours, project, effort.seconds)
            theirs = load(other, project, effort.seconds)
            if peer.name == "triton":
                shared.append(load(several, project, effort.seconds).rate / theirs.rate)
            pairs.append((mine, load(same, project, effort.seconds) if peer.path == INFER else mine, theirs))
        memory = pss_mb(other.process.pid)
    rate, p99 = LIMITS.get(peer.name, (None, None))
    emit(f"row_rps_vs_{peer.name}", middle(a.rate / b.rate for a, _, b in pairs), "x", rate, f"at least; {ran}")
    if shared:
        text = "ours with --processes 2: the peer's threads take both cores, and one process of ours takes one"
        emit(f"row_rps_2_processes_vs_{peer.name}", middle(iter(shared)), "x", rate, text)
    emit(f"row_p99_vs_{peer.name}", middle(a.p99_ms / b.p99_ms for a, _, b in pairs), "x", p99, "at most")
    ours_us, theirs_us = quiet(a.cpu_us for a, *_ in pairs), quiet(b.cpu_us for *_, b in pairs)
    if reference := REFERENCE_US.get(peer.name):
        text = f"at most: {ROW_US} us beside {reference} us"
        emit(f"row_cpu_vs_{peer.name}", ours_us / theirs_us, "x", ROW_US / reference, text)
        between = middle(a.cpu_us / b.cpu_us for a, _, b in pairs)
        emit(f"row_cpu_vs_{peer.name}_median", between, "x", None, "median over the pairs")
    if peer.path == INFER:
        text = "the same JSON tensors on /v2, byte for byte; ours answers labels as well"
        emit(f"row_v2_rps_vs_{peer.name}", middle(a.rate / b.rate for _, a, b in pairs), "x", None, text)
    emit(f"{peer.name}_cpu_us", theirs_us, "us", None, "measured beside ours")
    emit(f"{peer.name}_rps", middle(b.rate for *_, b in pairs), "1/s", None)
    emit(f"{peer.name}_start_s", other.start_s, "s", None)
    emit(f"{peer.name}_pss_mb", memory, "MB", None, "all its processes")
    return [mine for mine, *_ in pairs]


def guards(project: Path, effort: Effort) -> None:
    """Print what the guards cost a row, beside a server that checks the signature only and one without `LOOKS`.

    All three are started for that: a server that has answered for minutes costs more than one that has just begun.
    """
    (other := project / "unguarded").mkdir()
    folder, _, token = bundle(other)
    some = declared({name: guard for name, guard in GUARDS.items() if name not in LOOKS})
    with (
        served(folder, other, token, *declared(GUARDS), "--endpoint", "all") as every,
        served(folder, other, token, *some, "--endpoint", "some") as fewer,
        served(folder, other, token) as plain,
    ):
        targets = (every, fewer, plain)
        for one in targets:
            load(one, project, 1)
        rounds = [[load(one, project, effort.seconds).cpu_us for one in targets] for _ in range(effort.rounds)]
    all_us, fewer_us, without_us = (quiet(of) for of in zip(*rounds, strict=True))
    emit("row_guards_us", all_us - without_us, "us", None, f"of it {', '.join(GUARDS)}")
    emit("row_guarded_cpu_us", all_us, "us", None, "all guards, measured beside the two below")
    emit("row_looks_us", all_us - fewer_us, "us", None, f"of these {', '.join(LOOKS)}")
    between = middle(one[0] - one[1] for one in rounds)
    emit("row_looks_median_us", between, "us", None, "median over the rounds")
    emit("row_without_looks_cpu_us", fewer_us, "us", None, f"without {', '.join(LOOKS)}")
    emit("row_unguarded_cpu_us", without_us, "us", None, "the signature is checked, no more")


def python(ours: Target, folder: Path, project: Path, token: str, policy: tuple[str, ...], effort: Effort) -> None:
    """Print what a row costs where nothing was compiled when this was installed."""
    if compiled() is None:
        print(json.dumps({"name": "row_python_cpu_us", "skipped": "nothing was compiled here: it is `row_cpu_us`"}))
        return
    os.environ["MODELYARD_KERNELS"] = "python"
    try:
        with served(folder, project, token, *policy, "--endpoint", "python") as plain:
            load(plain, project, 1)
            pairs = [
                (load(ours, project, effort.seconds), load(plain, project, effort.seconds))
                for _ in range(effort.rounds)
            ]
    finally:
        del os.environ["MODELYARD_KERNELS"]
    emit("row_python_cpu_us", quiet(b.cpu_us for _, b in pairs), "us", None, "without compiled kernels")
    between = middle(a.cpu_us / b.cpu_us for a, b in pairs)
    emit("row_cpu_vs_python", between, "x", None, "with compiled kernels, beside it; median over the pairs")


def binary(given: list[dict[str, float]]) -> tuple[bytes, dict[str, str]]:
    """Return what an unmodified tritonclient sends of rows, and the headers that go with it."""
    data = matrix_of(given).tobytes()
    tensor = {"name": "numeric", "shape": [len(given), len(FEATURES)], "datatype": "FP32"}
    text = encoded(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    return text + data, {"Inference-Header-Content-Length": str(len(text))}


def batches(ours: Target, folder: Path, model: Path, effort: Effort) -> None:
    """Print the CPU of 1,000 rows by each way in, beside two models alone on the same matrices in this process.

    One is ONNX Runtime, which the limits are about. The other is what the server runs: of trees these are kernels of
    our own, which take a fraction of that, so that what is over ONNX Runtime says little of reading and writing.

    Each round runs the predictions alone, then each form over one connection: what of the machine changes between the
    rounds changes both sides of a pair.
    """
    from modelyard.inference import OnnxPredictor, open_bundle
    from modelyard.security.keys import trusted_keys

    given = [rows(BATCH, 100 + at) for at in range(effort.batches)]
    matrices = [matrix_of(one) for one in given]
    # With the session options that the server has for models without trees of its own.
    ort = OnnxPredictor(model.read_bytes())
    own = open_bundle(folder, trusted=trusted_keys(model.parent)).predictor()
    forms = {
        "binary": [(INFER, *binary(one)) for one in given],
        "v2": [(INFER, encoded(tensors(one)), {}) for one in given],
        "named": [("/predict", encoded(named(one)), {}) for one in given],
    }
    processes = tree(ours.process.pid)
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=30)

    def alone(predictor: Predictor) -> float:
        began = time.process_time()
        for matrix in matrices:
            predictor.predict({"numeric": matrix})
        return (time.process_time() - began) / len(matrices)

    def asked(form: str) -> float:
        before = cpu_s(processes)
        for path, body, headers in forms[form]:
            replace(ours, path=path).ask(body, connection, **headers)
        return (cpu_s(processes) - before) / len(matrices)

    found: dict[str, list[tuple[float, float, float]]] = {form: [] for form in forms}
    with contextlib.closing(connection), apart(ours.process.pid) as there:
        for at in range(effort.rounds + 1):
            for form, rounds in found.items():
                one = (there(partial(alone, ort)), there(partial(alone, own)), asked(form))
                if at:  # the first round warms all
                    rounds.append(one)
    said = "CPU of 1,000 rows, server beside ONNX Runtime alone in turns, on one core"
    alone_s, own_s = (quiet(one[at] for rounds in found.values() for one in rounds) for at in range(2))
    spent = {form: quiet(one[2] for one in rounds) for form, rounds in found.items()}
    emit(
        "batch_binary_vs_ort",
        spent["binary"] / alone_s,
        "x",
        1.1,
        f"{said}; as tritonclient sends",
    )
    for name, form, text in (("", "named", "rows with names on /predict"), ("_v2", "v2", "JSON tensors on /v2")):
        over = (spent[form] - alone_s) * 1000
        emit(f"batch_json{name}_over_ort_ms", over, "ms", 1.5, f"{said}; {text}")
        between = middle((c - a) * 1000 for a, _, c in found[form])
        emit(f"batch_json{name}_over_ort_median_ms", between, "ms", None, "median over the rounds")
        beside = f"{said.replace('ONNX Runtime', 'the kernels that it runs')}; {text}"
        emit(f"batch_json{name}_over_model_ms", (spent[form] - own_s) * 1000, "ms", None, beside)
    emit("batch_binary_over_model_ms", (spent["binary"] - own_s) * 1000, "ms", None, "the same; as tritonclient sends")
    emit("ort_ms", alone_s * 1000, "ms", None, "CPU of 1,000 rows alone")
    emit("model_ms", own_s * 1000, "ms", None, f"CPU of 1,000 rows alone, {type(own).__name__}: what the server runs")


def chosen() -> tuple[list[Peer], Effort]:
    """Return the peers and the effort that are asked for."""
    words: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", metavar="NAMES", help=f"peers, with commas: {', '.join(PEERS)}; or `ours`")
    words.add_argument("--quick", action="store_true", help="a few short rounds")
    given = words.parse_args()
    names = (given.only or ("fastapi,triton" if given.quick else ",".join(PEERS))).split(",")
    if unknown := set(names) - {*PEERS, "ours"}:
        words.error(f"no such peer: {', '.join(sorted(unknown))}")
    return [PEERS[name] for name in names if name != "ours"], QUICK if given.quick else WHOLE


def main() -> None:
    """Measure and print."""
    peers, effort = chosen()
    if shutil.which("wrk") is None:
        print(json.dumps({"name": "serving", "skipped": "wrk is not installed (Debian: apt-get install wrk)"}))
        return
    with tempfile.TemporaryDirectory() as made:
        project = Path(made)
        folder, model, token = bundle(project)
        policy = declared(GUARDS)
        starts = []
        for _ in range(effort.starts):
            with served(folder, project, token, *policy) as ours:
                starts.append(ours.start_s)
        emit("start_s", middle(iter(starts)), "s", 0.5, "from the start of the process to the first prediction")
        with (
            served(folder, project, token, *policy) as ours,
            served(folder, project, token, *policy, "--endpoint", "several", "--processes", "2") as several,
        ):
            load(ours, project, 1)
            load(several, project, 1)
            loads = [load(ours, project, effort.seconds) for _ in range(effort.slow_rounds)]
            for peer in peers:
                try:
                    loads += beside_peer(peer, ours, several, model, effort)
                except NotServed as error:
                    print(json.dumps({"name": peer.name, "skipped": str(error)}))
            said = (
                "CPU of one request, all threads, with all guards; the limit is of a machine where `bare` costs 12 us"
            )
            emit("row_cpu_us", quiet(one.cpu_us for one in loads), "us", ROW_US, said)
            emit("row_cpu_median_us", middle(one.cpu_us for one in loads), "us", None, "median over the rounds")
            emit("row_rps", middle(one.rate for one in loads), "1/s", None, f"{CONNECTIONS} connections, one row")
            guards(project, effort)
            python(ours, folder, project, token, policy, effort)
            batches(ours, folder, model, effort)
            if counted := found_by_guards(ours):
                raise NotAnswered(f"a guard found something, and the figures are of rows that all pass: {counted}")
            emit("pss_mb", pss_mb(ours.process.pid), "MB", 80, "after all of this")


if __name__ == "__main__":
    main()
