"""A page for people: one HTML file that needs nothing else, made of a template.

A template extends `base.html.j2`, which has the look, and takes its pieces from
`pieces.html.j2`.
"""

import base64
from pathlib import Path
from typing import Any

import jinja2

from pipeline.storage import atomic
from pipeline.system.console import in_bytes, in_time
from pipeline.system.errors import RunError

_MARK = '<meta name="generator" content="vgg16-at-scale: {}">'
_HEAD = 4096  # bytes, of which the mark is a part


def render(template: Path, *, made_by: str, **values: Any) -> str:
    """Returns a page.

    Args:
        template: its file.
        made_by: the command that makes such pages; see `refuse_other_file`.
        values: what the template names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,  # whatever a name of a class tries
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        share=_share,
        four=_four,
        count=_count,
        jpeg=_jpeg,
        size=in_bytes,
        duration=in_time,
    )
    page = environment.get_template(template.name)
    return page.render(mark=_MARK.format(made_by), **values)


def refuse_other_file(path: Path, *, made_by: str, advice: str) -> None:
    """Refuses to replace a file that the same command has not made.

    Args:
        path: of the page.
        made_by: as `render` takes it.
        advice: what to do about such a file.

    Raises:
        RunError: there is such a file, or a folder.
    """
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if _MARK.format(made_by).encode() in file.read(_HEAD):
                return
    raise RunError(
        f"{path.absolute()} is there already, and `{made_by}` did not write it. It "
        f"would be replaced: {advice}."
    )


def write(path: Path, page: str) -> None:
    """Commits a page as UTF-8.

    Raises:
        RunError: there is no folder for it.
    """
    if not path.absolute().parent.is_dir():
        raise RunError(
            f"{path.absolute().parent} is no folder; {path.name} cannot be written "
            "there. Make it, or name another file."
        )
    # Names of files and folders need not be UTF-8.
    atomic.write_text(path, page.encode(errors="backslashreplace").decode())


def _share(value: float | None, nothing: str = "not known") -> str:
    """Returns a share in percent."""
    return nothing if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _four(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _jpeg(encoded: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
