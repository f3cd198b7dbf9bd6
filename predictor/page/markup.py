"""HTML that cannot forget to escape: all text is, unless it is markup already."""

import html

_VOID = {"img", "meta"}


class Html(str):
    """Markup, as `tag` makes it."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element.
        children: markup, or text to escape.
        attributes: of the element; `class_` is class, `_` is -.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
    )
    opened = f"<{name}{shown}>"
    return Html(opened if name in _VOID else f"{opened}{join(children)}</{name}>")


def join(children: object) -> Html:
    """One after the other."""
    assert isinstance(children, tuple | list)
    return Html("".join(map(_markup, children)))


def _markup(child: object) -> str:
    return child if isinstance(child, Html) else html.escape(str(child))
