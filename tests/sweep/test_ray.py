"""Jobs on a real Ray cluster of this host; in the slow tests, of several nodes."""

import os
import platform
import shutil
import signal
import socket
from collections.abc import Iterator

import pytest
from processes import parent_of, processes_with, wait_until

from compress.errors import SweepError
from compress.files import sha256_of
from compress.sweep.executor import Ended, Job
from compress.sweep.ray import RayExecutor

pytest.importorskip("ray")

STEPS = 150  # of training: a kill comes in their middle
HEAD = {"num_cpus": 0, "include_dashboard": False}


def all_ended(executor: RayExecutor, count: int) -> dict[str, Ended]:
    found: dict[str, Ended] = {}
    for _ in range(600):
        found |= {each.name: each for each in executor.wait(1.0)}
        if len(found) == count:
            break
    return found


@pytest.fixture
def silent() -> Iterator[str]:
    """host:port where something listens, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_job_ends_with_its_code_and_last_words_and_where_its_worker_is_killed_without(tmp_path, monkeypatch, silent):
    monkeypatch.chdir(tmp_path)
    executor = RayExecutor(None, tmp_path)
    try:
        executor.submit(Job("version", ("--version",), tmp_path / "version"))
        executor.submit(Job("none", ("inspect", "none.onnx"), tmp_path / "none"))
        ended = all_ended(executor, 2)
        assert ended["version"].code == 0
        assert ended["none"].code == 2
        assert ended["none"].said == "compress: none.onnx: no such file; name the model's file of weights"

        executor.submit(Job("endless", ("list", "--from", f"http://{silent}"), tmp_path / "endless"))
        wait_until(lambda: processes_with(f"http://{silent}"))
        os.kill(parent_of(processes_with(f"http://{silent}")[0]), signal.SIGKILL)
        assert all_ended(executor, 1)["endless"].code is None
        wait_until(lambda: not processes_with(f"http://{silent}"))
    finally:
        executor.close()


@pytest.mark.slow
def test_an_address_where_no_cluster_answers_is_refused_in_one_line(tmp_path, capfd, silent):
    with pytest.raises(SweepError, match=f"no Ray cluster answers at {silent}; is one started there"):
        RayExecutor(silent, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_cluster_of_other_versions_is_refused_and_both_are_named(tmp_path, monkeypatch):
    from ray._raylet import GcsClient
    from ray.cluster_utils import Cluster

    facts = tmp_path / "compress_mobile-9.9.9.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: compress-mobile\nVersion: 9.9.9\n")
    with monkeypatch.context() as there:
        there.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        with pytest.raises(SweepError, match=r"has compress 9\.9\.9, this process compress 0\.1\.0: install the same"):
            RayExecutor(cluster.address, tmp_path)
        says = GcsClient(address=cluster.address)
        facts = says.internal_kv_get(b"CLUSTER_METADATA", b"cluster")
        facts = facts.replace(platform.python_version().encode(), b"3.9.1")
        says.internal_kv_put(b"CLUSTER_METADATA", facts, True, b"cluster")
        with pytest.raises(SweepError, match=r"has Ray \S+ and Python 3\.9\.1, this process Ray \S+ and Python 3\."):
            RayExecutor(cluster.address, tmp_path)
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_run_whose_node_is_killed_goes_on_on_another_to_the_same_files(tmp_path, tiny_model, tiny_data):
    from ray.cluster_utils import Cluster

    for each in tiny_model.parent.iterdir():
        shutil.copy(each, tmp_path)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe.read_text().replace("steps = 40", f"steps = {STEPS}"))
    given = ("run", str(tmp_path / "tiny.pt"), "--data", str(tiny_data), "--budget", "20kB", "--out")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    executor = RayExecutor(cluster.address, tmp_path)
    try:
        assert executor.slots() == 2
        executor.submit(Job("trial", (*given, str(alone)), alone))
        assert all_ended(executor, 1)["trial"].code == 0

        executor.submit(Job("trial", (*given, str(killed)), killed))
        wait_until((killed / "checkpoints" / "distil.state").is_file)
        worker = parent_of(processes_with(str(killed))[0])
        raylets = {each.process.pid: node for node in nodes for each in node.all_processes["raylet"]}
        cluster.remove_node(raylets[parent_of(worker)], allow_graceful=False)
        assert all_ended(executor, 1)["trial"].code is None
        wait_until(lambda: executor.slots() == 1)
        executor.submit(Job("trial", ("run", "--resume", str(killed)), killed))
        assert all_ended(executor, 1)["trial"].code == 0
    finally:
        executor.close()
        cluster.shutdown()
    for name in ("model.onnx", "model.tflite"):
        assert sha256_of(alone / name) == sha256_of(killed / name)
