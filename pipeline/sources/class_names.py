"""The classes of a listing: from a class list or from the images, each name once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipeline.sources import names, user_text
from pipeline.sources.listing import Listing
from pipeline.storage.object_paths import AnyPath
from pipeline.system import console
from pipeline.system.errors import RunError

_SHOWN = 5  # examples in a message


def read_class_list(path: AnyPath) -> tuple[str, ...]:
    """Returns the lines of a class list.

    Raises:
        RunError: there is no such text, it has an empty or a repeated line, or two that
            look the same.
    """
    flag = f"--classes={path}"
    found = user_text.lines(path, flag)
    advice = "It takes one class name per line, each once."
    seen: dict[str, int] = {}
    for number, name in enumerate(found, start=1):
        if not name.strip():
            raise RunError(f"{flag}: line {number} is empty. {advice}")
        if (first := seen.setdefault(name, number)) != number:
            raise RunError(
                f"{flag} repeats {names.shown(name)}, in lines {first} and {number}. "
                f"{advice}"
            )
    if not found:
        raise RunError(f"{flag} is empty. {advice}")
    if same := names.alike(found)[0]:
        raise RunError(f"{flag} has {_twins(same)}. {advice}")
    return tuple(found)


def classes_of(
    where: str, listing: Listing, given: tuple[str, ...], flag: str = "--classes"
) -> tuple[str, ...]:
    """Returns the class names: those given; else those of train, or without it all.

    Warns, in the listing, of one class alone, of names that differ in case only, and of
    given classes that no image has.

    Args:
        where: what messages call the images.
        listing: the images.
        given: of a class list; () where there is none.
        flag: what messages call it.

    Raises:
        RunError: two names look the same, or images have a class that is not known.
    """
    by_split: dict[str, set[str]] = defaultdict(set)
    for split, label in {(ref.split, ref.label) for ref in listing.refs} | {
        (reject.split, reject.label) for reject in listing.rejects
    }:
        if label:
            by_split[split].add(label)
    there = set().union(*by_split.values())
    same, near = names.alike(there)
    if same:
        raise RunError(
            f"{where}: there are {_twins(same)}. Give the photos of one class one "
            "name, or different classes names that differ."
        )
    known = set(given) or by_split["train"] or there
    for split, found in by_split.items():
        if strange := sorted(found - known):
            whole = flag if given else "train"
            raise RunError(
                f"{where}: {split} has classes that {whole} has not: "
                f"{', '.join(map(names.shown, strange[:20]))} ({len(strange)} in all)"
                f"{spelled_otherwise(strange, known)}. Add them to {whole}, or remove "
                f"them from {split}."
            )
    if near:
        listing.warnings.append(_nearly(near))
    if given and (unused := [name for name in given if name not in there]):
        listing.warnings.append(
            f"{len(unused)} of the {len(given)} classes of {flag} have no image, such "
            f"as {names.shown(unused[0])}"
        )
    classes = given or tuple(sorted(known))
    if len(classes) == 1:
        listing.warnings.append(
            f"there is one class, {names.shown(classes[0])}: a model of one class "
            "answers the same for every photo. Each class needs a folder (or a label) "
            "of its own."
        )
    return classes


def compare(known: Iterable[str], flag: str) -> None:
    """Holds the labels of a CSV to the classes of a model, which are among `known`.

    Prints a warning on names that differ in case only.

    Raises:
        RunError: two names look the same.
    """
    same, near = names.alike(known)
    if same:
        raise RunError(
            f"{flag}: with the classes of the model there are {_twins(same)}. Give "
            "labels as classes.txt spells them."
        )
    if near:
        console.warn(f"{flag}: {_nearly(near)}")


def spelled_otherwise(strange: Iterable[str], known: Iterable[str]) -> str:
    """Returns a half-sentence on names that are known in another spelling, or ""."""
    by_key = {names.key(name): name for name in known}
    for name in strange:
        if other := by_key.get(names.key(name)):
            return f"; {names.shown(name)} is spelled {names.shown(other)} there"
    return ""


def _nearly(groups: Sequence[Sequence[str]]) -> str:
    pairs = [" and ".join(map(names.shown, group)) for group in groups]
    return (
        f"{_listed(pairs)} are different classes, though they are spelled nearly the "
        "same. Is that what you mean?"
    )


def _twins(groups: Sequence[Sequence[str]]) -> str:
    pairs = [" and ".join(map(names.shown, group)) for group in groups]
    return f"names that look the same, and are not: {_listed(pairs)}"


def _listed(pairs: Sequence[str]) -> str:
    more = f" ({len(pairs)} such in all)" if len(pairs) > _SHOWN else ""
    return f"{'; '.join(pairs[:_SHOWN])}{more}"
