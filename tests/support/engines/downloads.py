"""What engines are made of: downloaded once, checked, and kept outside the repository.

The folder is ENGINES_CACHE, or vgg16-at-scale/engines in the user's cache folder.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.storage import atomic
from pipeline.system.errors import RunError

OLDEST_JAVA = 11
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def cache() -> Path:
    """Returns the folder of all downloads, which is made."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    default = Path(caches, "vgg16-at-scale", "engines")
    folder = Path(os.environ.get("ENGINES_CACHE") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def java() -> str:
    """Returns the path of Java.

    Raises:
        RunError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    if found is None:
        raise RunError(
            f"there is no {f'java in JAVA_HOME={home}' if home else '`java` here'}. "
            f"Flink and Spark need Java {OLDEST_JAVA} or newer: install one, such as "
            "Debian's openjdk-17-jre-headless, or set JAVA_HOME."
        )
    said = run([found, "-version"], "java")
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < OLDEST_JAVA:
        line = said.strip().partition("\n")[0]
        raise RunError(
            f"{found} is too old: it says {line!r}. Flink and Spark need Java "
            f"{OLDEST_JAVA} or newer: install one, or set JAVA_HOME."
        )
    return found


def unpacked_sdist(name: str, version: str, sha256: str) -> Path:
    """Returns the unpacked folder of a package of PyPI that comes as its sources.

    Args:
        name: of the package.
        version: of it.
        sha256: of the archive.

    Raises:
        RunError: it cannot be had, or is not what it was.
    """
    home = cache() / f"{name}-{version}"
    if home.is_dir():
        return home
    archive = cache() / f"{name}-{version}.tar.gz"
    if not archive.is_file():
        command = [*_pip(), "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        run([*command, f"--dest={cache()}", f"{name}=={version}"], f"{name} {version}")
    unpack(checked(archive, sha256), home)
    archive.unlink()
    return home


def python_packages(*pinned: str) -> Path:
    """Returns a folder for PYTHONPATH with packages, and nothing that they need.

    Args:
        pinned: such as `dask==2026.7.1`.

    Raises:
        RunError: they cannot be had.
    """
    home = cache() / "-".join(pinned).replace("==", "-")
    if not home.is_dir():
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".scratch-") as scratch:
            command = [*_pip(), "install", "--quiet", "--no-deps"]
            run([*command, f"--target={scratch}/made", *pinned], " ".join(pinned))
            Path(scratch, "made").replace(home)
    return home


def unpack(archive: Path, home: Path) -> None:
    """Makes a folder of the only one in an archive, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".scratch-") as scratch:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
        (made,) = Path(scratch).iterdir()
        made.replace(home)


def job_server(pom: Path) -> Path:
    """Returns a job server of Beam, which Maven packs as a pom says.

    Maven holds what it downloads to the checksums of its registry. Ours, beside the
    jar, sees what becomes of that later, and a change of the pom.

    Args:
        pom: named after what it makes.

    Raises:
        RunError: it cannot be had, or is not what it was.
    """
    jar = cache() / f"{pom.stem}-{atomic.sha256(pom)[:12]}.jar"
    note = jar.with_suffix(".sha256")
    if jar.is_file() and note.is_file():
        return checked(jar, note.read_text().strip())
    if not (mvn := shutil.which("mvn")):
        raise RunError(f"there is no `mvn` here to make {pom.name}: install Maven.")
    with tempfile.TemporaryDirectory(dir=jar.parent, prefix=".scratch-") as scratch:
        shutil.copy(pom, Path(scratch, "pom.xml"))
        options = ["--batch-mode", "--quiet", "--strict-checksums"]
        run([mvn, *options, "--file", scratch, "package"], pom.stem)
        (made,) = Path(scratch, "target").glob("beam-*.jar")
        made.replace(jar)
    atomic.write_text(note, f"{atomic.sha256(jar)}\n")
    return jar


def prism() -> Path:
    """Returns the program of Prism, which Go builds for the Beam that is installed.

    Raises:
        RunError: it cannot be had.
    """
    version = importlib.metadata.version("apache-beam")
    program = cache() / f"prism-{version}"
    if not program.is_file():
        if not (go := shutil.which("go")):
            raise RunError("there is no `go` here to build Prism: install Go.")
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".scratch-") as scratch:
            source = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{version}"
            run([go, "install", source], f"Prism {version}", GOBIN=scratch)
            Path(scratch, "prism").replace(program)
    return program


def checked(path: Path, sha256: str) -> Path:
    """Returns the path, once its content has proved to be the expected one.

    Raises:
        RunError: it has another checksum; the file is removed.
    """
    if (found := atomic.sha256(path)) == sha256:
        return path
    path.unlink()
    raise RunError(
        f"{path} has the SHA-256 {found}; {sha256} is what it must have. It was cut "
        "short or changed on its way, and is removed: run the same command again. If "
        "it happens again, the registry serves something else under this name."
    )


def run(command: Sequence[str], what: str, **environment: str) -> str:
    """Returns what a command says.

    Raises:
        RunError: it fails.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | environment,
    )
    said = done.stderr + done.stdout
    if done.returncode == 0:
        return said
    lines = [line.strip() for line in _COLOUR.sub("", said).splitlines() if line]
    errors = [line for line in lines if "ERROR" in line.upper()]
    reason = (errors or lines[-1:] or ["nothing"])[0]
    raise RunError(
        f"{what} could not be had: `{Path(command[0]).name}` says {reason!r}. Is there "
        "a network, and does the registry have it? Then run the same command again."
    )


def _pip() -> list[str]:
    """Returns pip, which environments made by uv lack; uv brings it along."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        raise RunError("neither pip nor uv is here to download with: install one.")
    return [uv, "tool", "run", "--quiet", "pip"]
