"""What engines are made of, and what is said where a part is missing."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from pipeline.storage import atomic
from pipeline.system.errors import RunError
from tests.support.engines import downloads


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that is empty."""
    monkeypatch.setenv("ENGINES_CACHE", str(tmp_path / "cache"))
    return downloads.cache()


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """A PATH with one folder, which is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


@pytest.fixture
def pom(tmp_path: Path) -> Path:
    path = tmp_path / "some_job_server.xml"
    path.write_text("<project/>")
    return path


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\n{text}\n")
    path.chmod(0o755)
    return path


def packed(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_no_java(bin_folder: Path, monkeypatch) -> None:
    with pytest.raises(RunError, match=r"no `java` here.* need Java 11.*JAVA_HOME"):
        downloads.java()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(RunError, match="there is no java in JAVA_HOME=/nowhere"):
        downloads.java()


@pytest.mark.parametrize("version", ["1.8.0_402", "9.0.4", "10"])
def test_a_java_too_old(bin_folder: Path, version: str) -> None:
    script(bin_folder / "java", f"echo 'openjdk version \"{version}\" 2018' >&2")
    with pytest.raises(RunError, match=f"too old.*{version}.*Java 11 or newer"):
        downloads.java()


@pytest.mark.parametrize("version", ["11.0.2", "17.0.15", "21"])
def test_a_java_new_enough(bin_folder: Path, version: str) -> None:
    java = script(bin_folder / "java", f"echo 'openjdk version \"{version}\"' >&2")
    assert downloads.java() == str(java)


def test_an_archive_that_was_cut_short(cache: Path) -> None:
    """It lies where a killed download would have left it."""
    archive = packed(cache / "thing-1.0.tar.gz", "thing-1.0/lib/a.jar")
    sha256 = atomic.sha256(archive)
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(RunError, match=f"has the SHA-256 .*{sha256} is what it must"):
        downloads.unpacked_sdist("thing", "1.0", sha256)
    assert not list(cache.iterdir())


def test_an_archive_is_unpacked_once(cache: Path) -> None:
    archive = packed(cache / "thing-1.0.tar.gz", "thing-1.0/lib/a.jar")
    sha256 = atomic.sha256(archive)
    for _ in range(2):
        home = downloads.unpacked_sdist("thing", "1.0", sha256)
        assert (home / "lib" / "a.jar").read_text() == "thing-1.0/lib/a.jar"
        assert list(cache.iterdir()) == [home]


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", "thing/a", "thing/../../b")
    with pytest.raises(tarfile.FilterError):
        downloads.unpack(archive, tmp_path / "home")
    assert list(tmp_path.iterdir()) == [archive]


def test_no_maven(cache: Path, bin_folder: Path, pom: Path) -> None:
    with pytest.raises(RunError, match=r"no `mvn` here to make some_job_server\.xml"):
        downloads.job_server(pom)


def test_a_maven_that_does_not_find_it(
    cache: Path, bin_folder: Path, pom: Path
) -> None:
    script(
        bin_folder / "mvn",
        "printf '\\033[1;31m[ERROR]\\033[m Could not find artifact it in central\\n'\n"
        "echo '[ERROR] Re-run Maven'; exit 1",
    )
    with pytest.raises(RunError, match=r"`mvn` says '\[ERROR\] Could not find artif"):
        downloads.job_server(pom)
    assert not list(cache.iterdir())


def test_a_job_server_is_made_once_and_held_to_what_it_was(
    cache: Path, bin_folder: Path, pom: Path, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", f"{bin_folder}:/bin:/usr/bin")
    made = "$folder/target/beam-job-server.jar"
    script(
        bin_folder / "mvn",
        f'while [ "$1" != --file ]; do shift; done; folder=$2\n'
        f'mkdir "$folder/target"; date +%N > "{made}"',
    )
    jar = downloads.job_server(pom)
    text = jar.read_text()
    assert downloads.job_server(pom).read_text() == text
    jar.write_text("changed")
    with pytest.raises(RunError, match=rf"{jar.name} has the SHA-256 .*removed"):
        downloads.job_server(pom)
    assert downloads.job_server(pom).read_text() != text
    pom.write_text("<project>another</project>")
    assert downloads.job_server(pom) != jar


def test_no_go(cache: Path, bin_folder: Path) -> None:
    with pytest.raises(RunError, match="no `go` here to build Prism"):
        downloads.prism()
    script(bin_folder / "go", "echo 'go: no such module' >&2; exit 1")
    with pytest.raises(RunError, match=r"Prism .* had: `go` says 'go: no such module'"):
        downloads.prism()
    assert not list(cache.iterdir())
