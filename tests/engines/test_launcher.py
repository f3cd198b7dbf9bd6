"""What `python -m tests.support.flink_cluster` refuses before it starts anything."""

import shutil
import socket
from pathlib import Path

import pytest

from tests.support.flink_cluster import __main__ as flink


@pytest.fixture(autouse=True)
def java(tmp_path, monkeypatch):
    """Some Java, as the first of PATH: nothing here gets so far as to use it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shell = shutil.which("sh")
    script = f"#!{shell}\necho 'openjdk version \"17.0.15\"' >&2\n"
    (folder / "java").write_text(script)
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.parametrize("flag", ["--port", "--rpc_port", "--pool_port"])
def test_a_port_that_is_taken(flag: str, tmp_path: Path, capsys) -> None:
    names = ("--port", "--rpc_port", "--pool_port")
    flags = dict(zip(names, free_ports(3), strict=True))
    with socket.create_server(("127.0.0.1", 0)) as server:
        flags[flag] = server.getsockname()[1]
        words = [f"{name}={port}" for name, port in flags.items()]
        assert flink.main(["up", f"--folder={tmp_path / 'flink'}", *words]) == 1
    error = capsys.readouterr().err
    assert f"port {flags[flag]} of 127.0.0.1 is taken" in error
    assert error.rstrip().endswith(f"another port with {flag}.")
    assert not list((tmp_path / "flink").glob("*/*"))


def test_no_java_at_all(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert flink.main(["up", f"--folder={tmp_path / 'flink'}"]) == 1
    assert "error: there is no `java` here" in capsys.readouterr().err
    assert not (tmp_path / "flink").exists()


def test_down_where_nothing_is_up(tmp_path: Path, capsys) -> None:
    assert flink.main(["down", f"--folder={tmp_path / 'flink'}"]) == 0
    assert capsys.readouterr().out == "nothing runs\n"


def test_status_where_nothing_is_up(tmp_path: Path, capsys) -> None:
    assert flink.main(["status", f"--folder={tmp_path / 'flink'}"]) == 1
    said = capsys.readouterr()
    assert said.out.count("is down") == 4
    assert "4 of 4 processes are down. `make flink-up` starts" in said.err


@pytest.mark.parametrize("words", [[], ["sideways"], ["up", "--prot=1"], ["up", "x"]])
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        flink.main(words)
    assert caught.value.code == 2
