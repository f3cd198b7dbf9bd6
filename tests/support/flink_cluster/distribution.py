"""What a Flink cluster is made of: Java, Flink itself, and Beam's job server.

Flink comes in two Python wheels, which are unpacked and never installed: they ask for
a Beam of years ago. Beam's job server, the program that turns a Beam job into one of
Flink, is a jar of Maven Central, made for one version of each.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.runners.flink import BEAM
from pipeline.storage import atomic
from pipeline.system.errors import RunError

FLINK = "2.2.1"
WHEELS = {
    "apache-flink": (  # bin/, conf/; the same in the wheels of every machine
        "apache_flink-2.2.1-cp311-cp311-manylinux_2_5_x86_64.manylinux1_x86_64."
        "manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a7e0e06e6e2a788b1e0c4f6225efe6a9bdcb6463db77080b99620c36c076cbab",
    ),
    "apache-flink-libraries": (  # lib/, plugins/; 313 MB
        "apache_flink_libraries-2.2.1-py2.py3-none-any.whl",
        "74dc5546fbd9add8fbcdf1222a237e09491f9b80296241aef8676ec56f8e686e",
    ),
}
OLDEST_JAVA = 11
_KEPT = ("bin", "conf", "lib", "licenses", "plugins")  # of what the wheels hold
_TARGET = ("--platform=manylinux2014_x86_64", "--python-version=3.11")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_OTHERWISE = "--jar=PATH takes one that you have, --jar=none does without Beam."
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def short(version: str) -> str:
    """The part of Flink's version that a job server is made for: 2.2 of 2.2.1."""
    return ".".join(version.split(".")[:2])


def java() -> Path:
    """The `java` that Flink's scripts take.

    Raises:
        RunError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    if found is None:
        raise RunError(
            f"there is no {f'java in JAVA_HOME={home}' if home else '`java` here'}. "
            f"Flink {FLINK} needs Java {OLDEST_JAVA} or newer: install one, such as "
            "Debian's openjdk-17-jre-headless, or set JAVA_HOME."
        )
    said = _run([found, "-version"], "java")
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < OLDEST_JAVA:
        line = said.strip().partition("\n")[0]
        raise RunError(
            f"{found} is too old: it says {line!r}. Flink {FLINK} needs Java "
            f"{OLDEST_JAVA} or newer: install one, or set JAVA_HOME."
        )
    return Path(found)


def home_path(folder: Path) -> Path:
    """Where Flink lies under `folder`, or will."""
    return folder / f"flink-{FLINK}"


def home(folder: Path) -> Path:
    """Flink itself, under `folder`: from the wheels, unless it is there already.

    Raises:
        RunError: a wheel cannot be had, or is not the one that it was.
    """
    found = home_path(folder)
    if found.is_dir():
        return found
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    unpack([_wheel(name, wheels) for name in WHEELS], found)
    shutil.rmtree(wheels)
    return found


def checked(path: Path, sha256: str) -> Path:
    """The path, once its content has proved to be the expected one.

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


def unpack(wheels: Sequence[Path], home: Path) -> None:
    """Makes the folder of a Flink distribution, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".scratch-") as scratch:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                members = [
                    name
                    for name in archive.namelist()
                    if name.startswith(tuple(f"pyflink/{part}/" for part in _KEPT))
                ]
                archive.extractall(scratch, members)
        made = Path(scratch, "pyflink")
        for script in (made / "bin").iterdir():
            script.chmod(0o755)  # zipfile drops the mode
        made.replace(home)


def job_server(folder: Path) -> Path:
    """Beam's job server for this Beam and this Flink, under `folder`.

    Maven holds it to the checksum of its repository; ours, which is noted beside it,
    sees what becomes of it later.

    Raises:
        RunError: it cannot be had, or is not what it was.
    """
    artifact = f"beam-runners-flink-{short(FLINK)}-job-server"
    jar = folder / f"{artifact}-{BEAM}.jar"
    note = jar.with_name(f"{jar.name}.sha256")
    if jar.is_file() and note.is_file():
        return checked(jar, note.read_text().strip())
    coordinates = f"org.apache.beam:{artifact}:{BEAM}:jar"
    _fetch_jar(coordinates, folder)
    atomic.write_text(note, f"{atomic.sha256(jar)}\n")
    return jar


def _wheel(name: str, folder: Path) -> Path:
    file, sha256 = WHEELS[name]
    if not (folder / file).is_file():
        said = _run(
            [
                *_pip(),
                *("download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *_TARGET,
                f"--dest={folder}",
                f"{name}=={FLINK}",
            ],
            f"{name} {FLINK}",
        )
        if not (folder / file).is_file():
            raise RunError(f"pip brought no {file}: {said.strip() or 'it is silent'}")
    return checked(folder / file, sha256)


def _pip() -> list[str]:
    """pip, which environments made by uv lack; uv brings it along."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        raise RunError("neither pip nor uv is here to download Flink: install one.")
    return [uv, "tool", "run", "--quiet", "pip"]


def _fetch_jar(coordinates: str, folder: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise RunError(
            f"there is no `mvn` here to fetch {coordinates}. Install Maven. "
            f"{_OTHERWISE}"
        )
    options = ["--batch-mode", "--quiet", "--update-snapshots", "--strict-checksums"]
    what = [f"-Dartifact={coordinates}", f"-DoutputDirectory={folder.absolute()}"]
    with contextlib.chdir(folder):  # no project's settings
        _run([mvn, *options, _COPY, *what], coordinates, _OTHERWISE)


def _run(command: Sequence[str], what: str, otherwise: str = "") -> str:
    """What a command says.

    Raises:
        RunError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    said = done.stderr + done.stdout
    if done.returncode == 0:
        return said
    lines = [line.strip() for line in _COLOUR.sub("", said).splitlines() if line]
    errors = [line for line in lines if "ERROR" in line.upper()]
    reason = (errors or lines[-1:] or ["nothing"])[0]
    raise RunError(
        f"{what} could not be had: `{Path(command[0]).name}` says {reason!r}. Is there "
        "a network, and does the registry have it? Then run the same command again. "
        f"{otherwise}".rstrip()
    )
