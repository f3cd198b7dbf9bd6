"""What the launcher of engines refuses; tests of an engine that is missing fail."""

import os
from pathlib import Path

import pytest

from pipeline.system.errors import RunError
from tests.support.engines import __main__ as launcher
from tests.support.engines.cluster import Cluster, Part
from tests.support.processes import Program


class Sleeper(Cluster):
    """Two processes that do nothing, or one that ends at once."""

    engine = "sleeper"
    ports_of = ("first", "second")
    ready = "ready"

    def fetch(self) -> None:
        """Downloads nothing."""

    def parts(self) -> dict[str, Part]:
        words = ["sh", "-c", f"echo {self.ready}; exec sleep 600"]
        return {"leader": Part(words, "ready"), "worker-1": Part(words, "ready")}

    def options(self) -> list[str]:
        return []


@pytest.fixture
def sleeper(tmp_path: Path):
    cluster = Sleeper(tmp_path / "run")
    yield cluster
    cluster.down()


def test_up_twice_starts_what_is_missing(sleeper: Sleeper) -> None:
    assert sleeper.up() == 2
    pids = {name: sleeper.process(name).pid for name in sleeper.parts()}
    assert sleeper.up() == 0
    assert sleeper.process("worker-1").stop()
    again = Sleeper(sleeper.folder)
    assert again.up() == 1
    assert again.ports == sleeper.ports
    assert again.process("leader").pid == pids["leader"]
    assert again.down() == ["worker-1", "leader"]
    assert again.down() == []


def test_a_process_that_ends_as_it_starts(sleeper: Sleeper, monkeypatch) -> None:
    monkeypatch.setattr(Sleeper, "ready", "no memory; exit")
    with pytest.raises(RunError, match=r"leader of sleeper ended .*'no memory'.*log"):
        sleeper.up()


def test_down_where_nothing_is_up(tmp_path: Path, capsys) -> None:
    words = ["down", "--engine=flink", f"--folder={tmp_path / 'run'}"]
    assert launcher.main(words) == 0
    assert capsys.readouterr().out == "nothing runs\n"


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_no_java(engine: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    folder = tmp_path / "run"
    assert launcher.main(["up", f"--engine={engine}", f"--folder={folder}"]) == 1
    assert "error: there is no `java` here" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    "words", [[], ["up"], ["sideways"], ["up", "--engine=samza"], ["up", "x"]]
)
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launcher.main(words)
    assert caught.value.code == 2


def test_an_engine_that_cannot_be_started_fails_its_tests(
    tmp_path: Path, program: Program
) -> None:
    """It does not skip them."""
    (tmp_path / "bin").mkdir()
    path = os.environ | {"PATH": str(tmp_path / "bin"), "JAVA_HOME": ""}
    words = ("tests/clusters", "-k", "flink and twice", "-q", "-p", "no:cacheprovider")
    result = program("pytest", *words, f"--basetemp={tmp_path / 'temp'}", env=path)
    assert result.returncode == 1
    assert "there is no `java` here" in result.stdout
    assert "1 error" in result.stdout
