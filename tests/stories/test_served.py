"""A model that was run is served: what an unmodified client of the open protocol is told is what was trained."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import modelyard
from modelyard.cli.main import main
from modelyard.records import read_value
from tests.stories.conftest import LOGISTIC


@pytest.mark.parametrize("family", ["logistic", pytest.param("random_forest", marks=pytest.mark.thorough)])
def test_the_endpoint_answers_as_scikit_learn_does(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    folder = ran
    monkeypatch.chdir(folder)
    if family != "logistic":
        (folder / "modelyard.yaml").write_text(LOGISTIC.replace("logistic", family))
        assert main(["run"]) == 0
    capsys.readouterr()
    assert main(["show", "models"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert len({row[1] for row in shown}) == len(shown), "each model once"
    assert [row[-1] for row in shown].count("champion") == 1
    assert main(["token", "add", "story", "--role", "analyst", "--json"]) == 0
    secret = json.loads(capsys.readouterr().out)["token"]

    server = subprocess.Popen(
        [sys.executable, "-m", "modelyard", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        talk = iter(server.stderr or ())
        url = next(found.group(1) for line in talk if (found := re.search(r"http://(127\.0\.0\.1:\d+)", line)))
        rows, expected, parity = trained(folder)
        answered = asked(url, secret, rows)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=20)
        if server.stderr:
            server.stderr.close()
    assert code == 0
    assert np.abs(answered - expected).max() <= max(parity, 1e-6)

    # What was answered was logged, and holds no drift: these are rows of the same origin.
    assert main(["watch", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["window"]["rows"] == len(expected)


def trained(folder: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Train the winner again with scikit-learn itself; return test rows, its probabilities, the recorded parity."""
    from modelyard.models.dataset import dataset
    from modelyard.models.families import get
    from modelyard.models.fitting import fit

    with modelyard.open_project(folder) as store:
        run = store.ledger.run(store.ledger.runs()[0].id)
        assert run is not None
        model, problem = read_value(run["fit#model"]), read_value(run["split#problem"])
        train = dataset(store.tables.read(read_value(run["split#train"])).collect(), problem, drop=["id"])
        test = dataset(store.tables.read(read_value(run["split#test"])).collect(), problem, signature=model.signature)
    fitted = fit(get(model.family), model.params, train.feeds, train.target, problem, 0)
    matrix = fitted.preparation.transform(test.feeds)
    return test.feeds, fitted.estimator.predict_proba(matrix), float(run["fit#parity"]["value"])


def asked(url: str, secret: str, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Ask through the unmodified client, in JSON."""
    with warnings.catch_warnings():
        # gevent, under the client, warns about itself when it is imported.
        warnings.simplefilter("ignore")
        import tritonclient.http as triton

    client = triton.InferenceServerClient(url=url)
    try:
        headers = {"authorization": f"Bearer {secret}"}
        assert client.is_server_live()
        assert client.is_server_ready()
        told = client.get_model_metadata("tumours", headers=headers)
        assert {t["name"] for t in told["inputs"]} == set(rows)
        tensors = []
        for name, values in rows.items():
            kind = "FP32" if values.dtype == np.float32 else "BYTES"
            tensor = triton.InferInput(name, list(values.shape), kind)
            tensor.set_data_from_numpy(values, binary_data=False)
            tensors.append(tensor)
        result = client.infer("tumours", tensors, headers=headers)
        probabilities = result.as_numpy("probabilities")
        assert isinstance(probabilities, np.ndarray)
        return probabilities
    finally:
        client.close()
