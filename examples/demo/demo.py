"""The main job on real data, from two arrivals of files to a served model and a found drift.

Run by `make demo`. It types the commands that a user would type and shows what they print; everything happens in the
folder `demo/` beside the README, without a network. Run again, it skips what did not change.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("MODELYARD_DEMO", HERE.parents[1] / "demo")).resolve()
MODELYARD = [sys.executable, "-m", "modelyard"]

# Sample 12's radius below zero, 40's missing, and so on: each breaks one rule of the contract.
DIRTY = {
    12: ("mean_radius", "-4.2", "a radius below zero"),
    40: ("diagnosis", "", "no diagnosis"),
    77: ("mean_area", "n.n.", "a text where a number belongs"),
    150: ("diagnosis", "unclear", "a diagnosis that the contract does not know"),
    201: ("mean_texture", "940.0", "a texture ten times out of range"),
}
ARRIVALS = {"arrival-1.csv": range(400), "arrival-2.csv": range(400, 569)}


def say(text: str) -> None:
    """Print a heading of the demo."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def modelyard(*arguments: str, expect: int = 0) -> None:
    """Type one command and show what it prints."""
    print(f"$ modelyard {' '.join(arguments)}", flush=True)
    code = subprocess.run([*MODELYARD, *arguments], cwd=FOLDER, check=False).returncode
    if code != expect:
        raise SystemExit(f"`modelyard {' '.join(arguments)}` ended with {code}, expected {expect}")


def rows() -> list[dict[str, str]]:
    """Return the 569 real samples as text, with an id each."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    return [
        {
            "id": str(1000 + i),
            **{name: repr(float(v)) for name, v in zip(names, values, strict=True)},
            "diagnosis": str(data.target_names[label]),
        }
        for i, (values, label) in enumerate(zip(data.data, data.target, strict=True))
    ]


def arrive(name: str, samples: list[dict[str, str]]) -> None:
    """Write one arrival of files, whole, with the dirty rows planted in it."""
    target = FOLDER / "data" / name
    if target.exists():
        print(f"{name} is there from before")
        return
    wanted = ARRIVALS[name]
    planted = []
    part = target.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(samples[0]))
        writer.writeheader()
        for i in wanted:
            row = dict(samples[i])
            if i in DIRTY:
                column, value, what = DIRTY[i]
                row[column] = value
                planted.append(f"  row {row['id']}: {what}")
            writer.writerow(row)
    part.rename(target)
    print(f"{name}: {len(wanted)} samples, {len(planted)} dirty rows planted")
    print("\n".join(planted))


def serve() -> tuple[subprocess.Popen[str], str]:
    """Start the endpoint on a free port and return it with its address."""
    print("$ modelyard serve --port 0 &", flush=True)
    process = subprocess.Popen(
        [*MODELYARD, "serve", "--port", "0"], cwd=FOLDER, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stderr or ():
        if not re.search(r"\btoken\b.*\S{30}", line):
            print(line, end="", flush=True)
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return process, found.group()
    raise SystemExit("the server did not start")


def token() -> str:
    """Make a token for the demo's caller; it is shown once and kept in no file."""
    command = [*MODELYARD, "token", "add", f"demo-{os.getpid()}", "--role", "analyst", "--json"]
    print("$ modelyard token add demo --role analyst", flush=True)
    made = subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, text=True)
    return str(json.loads(made.stdout)["token"])


def ask(url: str, secret: str, sample: dict[str, str], *, shift: float) -> None:
    """Send one sample; `shift` moves its sizes, as a wrongly calibrated microscope would."""
    row = {
        name: float(value) * (shift if any(w in name for w in ("radius", "perimeter", "area")) else 1.0)
        for name, value in sample.items()
        if name not in ("id", "diagnosis")
    }
    request = urllib.request.Request(  # noqa: S310 - our own server on the loopback
        f"{url}/predict",
        data=json.dumps({"rows": [row]}).encode(),
        headers={"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        json.load(answer)


def main() -> None:
    """Run the whole story."""
    began = time.monotonic()
    (FOLDER / "data").mkdir(parents=True, exist_ok=True)
    for name in ("modelyard.yaml", "features.py"):
        if not (FOLDER / name).exists():
            shutil.copy(HERE / name, FOLDER / name)
    samples = rows()

    if not (FOLDER / "data" / "arrival-2.csv").exists():
        say("1. The first arrival: from a file to a champion")
        arrive("arrival-1.csv", samples)
        modelyard("run")

    say("2. The second arrival: only what is new is read; the new model must beat the champion")
    arrive("arrival-2.csv", samples)
    modelyard("run")

    say("3. Nothing changed: everything is cached")
    modelyard("run")

    say("4. Served: 100 requests as in training, then 100 from a microscope that measures 40 % too large")
    secret = token()
    process, url = serve()
    try:
        for sample in samples[0:500:5]:
            ask(url, secret, sample, shift=1.0)
        print("100 answered", flush=True)
        time.sleep(1.0)  # the request log is written off the hot path
        modelyard("watch", "--last", "100")
        for sample in samples[1:501:5]:
            ask(url, secret, sample, shift=1.4)
        print("100 more answered, shifted", flush=True)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    say("5. Watched: the window of the last 100 requests against the training data")
    modelyard("watch", "--last", "100", expect=1)

    say(f"Done in {time.monotonic() - began:.0f} s. It is all in {FOLDER}")
    print(f"  the model card     {FOLDER / 'cards' / 'tumours.html'}")
    print("  set aside          modelyard show contract.samples.quarantine")
    print("\nType next:")
    print(f"  cd {FOLDER} && source {HERE.parents[1] / '.venv/bin/activate'}")
    print("  modelyard ui           # the runs, the models, the checks, the card, the monitoring")
    print("  modelyard verify       # measure every number of the card again")
    print("  modelyard rollback     # the champion before this one answers again")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
