"""The conformance suite: our backends pass it, and what it tells about one that does not is enough to mend it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys

import patience
import pytest

from pcae_conformance import known_failures
from pcae_conformance.check import all_checks
from pcae_conformance.runner import MAX_EXAMPLES, Options, run
from pcae_core.errors import ConfigError

STRANGER = '''
import numpy as np
from pcae_core import BackendSpec, Capabilities
from pcae_numpy.backend import NumpyBackend


class Stranger(NumpyBackend):
    """Keeps the most similar tokens, and does not train."""

    name = "stranger"
    capabilities = Capabilities(training=False, dtypes=("float64",), devices=("cpu",))

    def select_tokens(self, scores, k):
        return super().select_tokens(-np.asarray(scores), k)


SPEC = BackendSpec("stranger", lambda device="cpu": Stranger(device), Stranger.capabilities, distribution="stranger")
'''
METADATA = "Metadata-Version: 2.1\nName: stranger\nVersion: 1.2.3\n"


@pytest.fixture
def stranger(tmp_path):
    """A folder for the module path in which a broken backend is installed."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    info = tmp_path / "stranger-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[pcae.backends]\nstranger = stranger:SPEC\n")
    return tmp_path


def python(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=patience.SECONDS,
    )


def conformance(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "pcae.cli", "conformance", *arguments)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_our_backends_conform(name):
    results = run(Options(name, max_examples=MAX_EXAMPLES["ci"]))
    assert {result.check.name: result.message for result in results if result.verdict == "failed"} == {}
    assert {result.check.name for result in results} == set(all_checks())
    if name == "torch":
        assert {result.verdict for result in results} == {"passed"}


def test_a_failure_says_what_and_how_to_run_it_again(stranger):
    failed = conformance(stranger, "stranger", "--only", "select-lowest")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert failed.stderr == "pcae: error: stranger does not conform: 1 failed\n"
    assert "select-lowest in float64: exactly the k lowest by (score, index)" in failed.stdout
    assert re.search(r"got \d, expected \d, difference \d, tolerance 0", failed.stdout)
    assert re.search(r"^  input +ScoresCase\(seed=0, batch=2, length=8, k=3", failed.stdout, re.MULTILINE)
    (again,) = re.findall(r"^  again +pcae conformance (.*)$", failed.stdout, re.MULTILINE)

    once_more = conformance(stranger, *shlex.split(again))
    assert once_more.returncode == 1
    assert once_more.stdout.split("select-lowest in float64")[1] == failed.stdout.split("select-lowest in float64")[1]
    assert conformance(stranger, "numpy", *shlex.split(again)[1:]).returncode == 0


def test_a_backend_that_does_not_train_skips_training_by_declaration(stranger):
    done = conformance(stranger, "stranger", "--only", "train-step", "--json", "report.json")
    assert done.returncode == 0
    report = json.loads((stranger / "report.json").read_text())
    (entry,) = report["checks"]
    assert (entry["verdict"], entry["examples"]) == ("not run", 0)
    assert entry["message"] == "by declaration: the backend does not train"
    assert report["versions"]["stranger"] == "1.2.3"
    assert report["versions"]["hypothesis"] == importlib.metadata.version("hypothesis")


def test_a_known_failure_is_excused_with_its_reason(stranger):
    (stranger / known_failures.FILE_NAME).write_text(
        "# ours\nselect-lowest  # sorts the wrong way [see #12], [/docs/bug]\n"
    )
    done = conformance(stranger, "stranger", "--only", "select-lowest")
    assert done.returncode == 0
    assert "known failure (sorts the wrong way [see #12], [/docs/bug])" in " ".join(done.stdout.split())
    assert "stranger conforms: 1 known failure" in done.stdout


def test_a_known_failure_that_passes_fails(stranger):
    (stranger / known_failures.FILE_NAME).write_text("scores-reference[float64]  # no longer true\n")
    done = conformance(stranger, "stranger", "--only", "scores-reference")
    assert done.returncode == 1
    assert "listed in" in done.stdout
    assert "but it passes; remove the line" in done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no-such-check  # why", "'no-such-check' matches no check"),
        ("train-step  # it does not train", "'train-step' matches no check that this backend runs"),
        ("select-lowest[float16]  # not claimed", "matches no check that this backend runs"),
        ("select-lowest", "no reason"),
        ("select-lowest # a\nselect-lowest # b", "listed twice"),
    ],
)
def test_an_entry_that_matches_nothing_or_has_no_reason_is_an_error(stranger, line, said):
    (stranger / known_failures.FILE_NAME).write_text(line + "\n")
    done = conformance(stranger, "stranger", "--max-examples", "1")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonesuch"], "unknown backend 'nonesuch'"),
        (["numpy", "--only", "nonesuch"], "unknown check 'nonesuch'; known: contract-signatures, "),
        (["numpy", "--dtype", "float16"], "does not claim 'float16'"),
        (["numpy", "--device", "tpu"], "not 'tpu'"),
        (["numpy", "--max-examples", "0"], "--max-examples must be at least 1"),
        (["numpy", "--case", "{}"], "--case needs --only"),
        (["numpy", "--only", "select-lowest", "--case", '{"length": "x"}'], "length of ScoresCase must be like 1"),
        (["numpy", "--only", "select-lowest", "--case", '{"size": 1}'], "not a case of this check (ScoresCase)"),
        (["numpy", "--only", "select-lowest", "--json", "no/such/folder.json"], "cannot write no/such/folder.json"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, arguments, said):
    done = conformance(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("pcae: error: ")
    assert done.stderr.count("\n") == 1


def test_without_hypothesis_the_extra_is_named(tmp_path):
    code = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'hypothesis' else find(name, *rest)\n"
        "from pcae.cli.main import run; sys.exit(run(['conformance', 'numpy']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "pcae[conformance]"' in done.stderr


def test_the_same_seed_draws_the_same_cases():
    one, same, other = (
        run(Options("numpy", only="scores-definition", max_examples=30, seed=seed))[0] for seed in (1, 1, 2)
    )
    assert (one.worst, one.worst_input) == (same.worst, same.worst_input)
    assert one.worst_input != other.worst_input


def test_examples_are_shared_among_dtypes():
    results = run(Options("torch", only="masks-uniform", max_examples=40))
    assert [result.dtype for result in results] == ["float64"]
    results = run(Options("torch", only="patchify-definition", max_examples=40))
    assert [(result.dtype, result.examples) for result in results] == [
        (dtype, 2 + 10) for dtype in ("float64", "float32", "bfloat16", "float16")
    ]


def test_a_case_travels_through_json():
    for check in all_checks().values():
        for case in check.examples:
            assert check.case_type.from_json(case.to_json()) == case
    with pytest.raises(ConfigError, match="not a case"):
        check.case_type.from_json("[")


# pytest


def pytest_run(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    plugin = ["-p", "pcae_conformance.plugin", "--pyargs", "pcae_conformance", "-p", "no:cacheprovider"]
    return python(folder, "pytest", *plugin, "-q", "-rA", *arguments)


def test_the_suite_runs_in_pytest(stranger):
    (stranger / known_failures.FILE_NAME).write_text("select-all  # none; this line is wrong\n")
    done = pytest_run(stranger, "--pcae-backend", "stranger", "--pcae-max-examples", "5", "-k", "select or train-step")
    assert done.returncode == 1
    assert "SKIPPED" in done.stdout
    assert "the backend does not train" in done.stdout
    assert "FAILED" in done.stdout
    assert "again     pcae conformance stranger --only select-lowest" in done.stdout
    assert "but it passes; remove the line" in done.stdout
    assert re.search(r"2 failed, 1 passed, 1 skipped, \d+ deselected", done.stdout)


def test_pytest_needs_a_backend(tmp_path):
    done = pytest_run(tmp_path)
    assert "the conformance suite needs --pcae-backend NAME" in done.stdout + done.stderr
    assert done.returncode == 4
    done = pytest_run(tmp_path, "--pcae-backend", "nonesuch")
    assert "unknown backend 'nonesuch'" in done.stdout + done.stderr
    assert done.returncode == 4


def test_the_plugin_enters_nobody_s_pytest():
    assert not [point for point in importlib.metadata.entry_points(group="pytest11") if "pcae" in point.value]
