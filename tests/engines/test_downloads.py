"""What a Flink cluster is made of, and what is said where a part is missing."""

import shutil
import zipfile
from pathlib import Path

import pytest

from pipeline.runners.flink import own_job_server
from pipeline.storage import atomic
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.flink_cluster import distribution

SHORT = distribution.short(distribution.FLINK)
JAR = f"beam-runners-flink-2.2-job-server-{distribution.BEAM}.jar"


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """A PATH with one folder, which is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\n{text}\n")
    path.chmod(0o755)
    return path


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_no_java(bin_folder: Path, monkeypatch) -> None:
    with pytest.raises(RunError, match=r"no `java` here.* needs Java 11.*JAVA_HOME"):
        distribution.java()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(RunError, match="there is no java in JAVA_HOME=/nowhere"):
        distribution.java()


@pytest.mark.parametrize("version", ["1.8.0_402", "9.0.4", "10"])
def test_a_java_too_old(bin_folder: Path, version: str) -> None:
    script(bin_folder / "java", f"echo 'openjdk version \"{version}\" 2018' >&2")
    with pytest.raises(RunError, match=f"too old.*{version}.*Java 11 or newer"):
        distribution.java()


@pytest.mark.parametrize("version", ["11.0.2", "17.0.15", "21"])
def test_a_java_new_enough(bin_folder: Path, version: str) -> None:
    java = script(bin_folder / "java", f"echo 'openjdk version \"{version}\"' >&2")
    assert distribution.java() == java


def test_a_wheel_that_was_cut_short(tmp_path: Path) -> None:
    """It lies where a killed download would have left it."""
    file, sha256 = distribution.WHEELS["apache-flink"]
    wheel = tmp_path / "wheels" / file
    wheel.parent.mkdir()
    wheel.write_bytes(b"PK\3\4 and not much more")
    with pytest.raises(RunError, match=f"has the SHA-256 .*{sha256} is what it must"):
        distribution.home(tmp_path)
    assert not wheel.exists()
    assert not distribution.home_path(tmp_path).exists()


def test_wheels_are_unpacked_less_their_python(tmp_path: Path) -> None:
    scripts = zipped(
        tmp_path / "a.whl", "pyflink/bin/run.sh", "pyflink/conf/c", "pyflink/table.py"
    )
    jars = zipped(tmp_path / "b.whl", "pyflink/lib/flink.jar", "pyflink/bin/tool.jar")
    home = tmp_path / "home"
    distribution.unpack([scripts, jars], home)
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert found == {"bin/run.sh", "bin/tool.jar", "conf/c", "lib/flink.jar"}
    assert (home / "bin" / "run.sh").stat().st_mode & 0o111


def test_a_distribution_is_whole_or_not_there(tmp_path: Path) -> None:
    good = zipped(tmp_path / "a.whl", "pyflink/bin/run.sh")
    bad = tmp_path / "b.whl"
    bad.write_bytes(good.read_bytes()[:-30])
    with pytest.raises(zipfile.BadZipFile):
        distribution.unpack([good, bad], tmp_path / "home")
    assert {path.name for path in tmp_path.iterdir()} == {"a.whl", "b.whl"}


def test_no_maven(bin_folder: Path, tmp_path: Path) -> None:
    artifact = f"beam-runners-flink-2.2-job-server:{distribution.BEAM}:jar"
    with pytest.raises(RunError, match=f"no `mvn` here to fetch .*{artifact}.*--jar="):
        distribution.job_server(tmp_path)


def test_a_maven_that_does_not_find_it(bin_folder: Path, tmp_path: Path) -> None:
    script(
        bin_folder / "mvn",
        "printf '\\033[1;31m[ERROR]\\033[m Could not find artifact it in central\\n'\n"
        "echo '[ERROR] Re-run Maven'; exit 1",
    )
    with pytest.raises(RunError, match=r"`mvn` says '\[ERROR\] Could not find artif"):
        distribution.job_server(tmp_path)


def test_a_job_server_that_changed_since(bin_folder: Path, tmp_path: Path) -> None:
    jar = zipped(tmp_path / JAR, "a")
    note = tmp_path / f"{JAR}.sha256"
    note.write_text(f"{atomic.sha256(jar)}\n")
    assert distribution.job_server(tmp_path) == jar
    zipped(jar, "b")
    with pytest.raises(RunError, match=rf"{JAR} has the SHA-256 .*removed"):
        distribution.job_server(tmp_path)
    assert not jar.exists()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"beam-runners-flink-1.20-job-server-{distribution.BEAM}.jar", "Flink 1.20 "),
        ("beam-runners-flink-2.2-job-server-2.60.0.jar", "Flink 2.2 and Beam 2.60.0"),
    ],
)
def test_a_job_server_of_other_versions(tmp_path: Path, name: str, found: str) -> None:
    jar = zipped(tmp_path / name, "a")
    with pytest.raises(RunError, match=f"made for {found}.*here are Flink 2.2 and"):
        own_job_server(jar, flink=SHORT)


def test_a_job_server_of_ones_own(tmp_path: Path) -> None:
    for name in (JAR, "built-by-us.jar"):
        jar = zipped(tmp_path / name, "a")
        assert own_job_server(jar, flink=SHORT) == jar
    text = tmp_path / "text.jar"
    text.write_text("no jar")
    with pytest.raises(RunError, match=rf"text.jar is no jar\. .* the file {JAR} of"):
        own_job_server(text, flink=SHORT)
    with pytest.raises(RunError, match=r"missing.jar is not there\."):
        own_job_server(tmp_path / "missing.jar", flink=SHORT)
    with pytest.raises(RunError, match=r"for Flink 2\.2 .*here are Flink 1\.20 and"):
        own_job_server(zipped(tmp_path / JAR, "a"), flink="1.20")


def test_the_job_server_is_of_the_pinned_beam() -> None:
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert f"apache-beam=={distribution.BEAM}" in constraints
