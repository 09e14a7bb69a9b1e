"""What is loaded when: importing Modelyard must cost nothing, the runner little."""

from __future__ import annotations

import json
import subprocess
import sys

import modelyard

# `import modelyard` may load no third-party module. The runner needs values and the ledger (msgspec brings the other).
ALLOWED = {"": set(), "from modelyard import run, Flow": {"msgspec", "typing_extensions"}}
PROBE = """
import sys, json
before = set(sys.modules)
import modelyard
{extra}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(extra: str) -> set[str]:
    code = PROBE.format(extra=extra or "pass")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    top = {name.partition(".")[0] for name in json.loads(done.stdout)}
    return {name for name in top if name not in sys.stdlib_module_names and name not in ("modelyard", "__mp_main__")}


def test_importing_loads_no_third_party_module() -> None:
    assert loaded("") == ALLOWED[""]


def test_the_runner_loads_only_its_allow_list() -> None:
    extra = "from modelyard import run, Flow"
    assert loaded(extra) <= ALLOWED[extra]


def test_every_public_name_is_found_and_listed_once() -> None:
    assert sorted(modelyard.__all__) == list(modelyard.__all__)
    assert dir(modelyard) == sorted(modelyard.__all__)
    for name in modelyard.__all__:
        assert getattr(modelyard, name) is not None
