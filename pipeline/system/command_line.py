"""The command line of a program: verbs, and the flags of each, made of a dataclass.

A verb is a function that takes one frozen dataclass. A field of it is declared once,
with its type, help text and default, and becomes a flag of that verb alone:

    @dataclass(frozen=True, kw_only=True)
    class PlanOptions:
        images: AnyPath = flag_paths.path_option("Names the folder of the photos.")
        height: int = option("Sets the rows of a stored image.", 150, lower_bound=1)
        beam_arguments: tuple[str, ...] = passed_on()

    VERBS = {"plan": Verb(PlanOptions, plan)}
    sys.exit(command_line.main("pipeline", VERBS, argv=sys.argv, about=__doc__))

A field without a default is a flag that must be given. Every verb has --quiet and
--debug, too. This module alone defines absl flags, in one FlagValues a verb.
"""

import contextlib
import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, NamedTuple

from absl import flags

from pipeline.system import console
from pipeline.system.errors import UsageError

_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
# The flags of the command line of this process, as texts.
_given: dict[str, str] = {}

# What every verb has.
_VOICE = {
    "quiet": "Prints warnings, errors and the closing line, and nothing else.",
    "debug": "Prints tracebacks, also of errors that are told in plain words, and all "
    "that libraries write as they start.",
}
# Keys of the metadata of a field.
_FLAG, _GROUP, _PASSED_ON = "flag", "group", "passed_on"


class Verb(NamedTuple):
    """What a program can do.

    Attributes:
        options: the frozen dataclass that `run` takes.
        run: does the work; its docstring is the line of the verb in `--help`.
    """

    options: type
    run: Callable[[Any], None]


@dataclasses.dataclass(frozen=True)
class _Flag:
    """How a field becomes a flag; see option."""

    help: str
    choices: Sequence[str]
    read: Callable[[Any, str], Any] | None
    repeated: bool
    name: str
    bounds: Mapping[str, float]


class _Group(NamedTuple):
    """How a field becomes several flags; see group."""

    options: type
    convert: Callable[[Any], Any]
    defaults: Mapping[str, Any]


def option(
    help: str,
    default: Any = MISSING,
    *,
    choices: Sequence[str] = (),
    read: Callable[[Any, str], Any] | None = None,
    repeated: bool = False,
    name: str = "",
    **bounds: float,
) -> Any:
    """Declares a field of a dataclass that is a flag.

    Args:
        help: begins with a verb, and names the default where that is None.
        default: of the field; without one the flag must be given.
        choices: the words that the flag takes.
        read: makes the value of the field from the text and the name of the flag.
            Without it the type of the field (bool, int, float or str) says what the
            flag takes.
        repeated: the flag may stand several times, and `read` takes a list of texts.
        name: of the flag, where it is not that of the field.
        bounds: lower_bound and upper_bound of a number.
    """
    flag = _Flag(help, choices, read, repeated, name, bounds)
    return dataclasses.field(default=default, metadata={_FLAG: flag})


def group(
    options: type,
    *,
    convert: Callable[[Any], Any] = lambda made: made,
    **defaults: Any,
) -> Any:
    """Declares a field whose value is made of a dataclass with flags of its own.

    Args:
        options: that dataclass.
        convert: makes the value of the field of it. Both may raise ValueError for
            values that do not fit each other: a wrong usage.
        defaults: of the flags, for fields that have none or others.
    """
    return dataclasses.field(
        default_factory=lambda: convert(options(**defaults)),
        metadata={_GROUP: _Group(options, convert, defaults)},
    )


def passed_on() -> Any:
    """Declares the field that takes the words after the first `--`, for Beam."""
    return dataclasses.field(default=(), metadata={_PASSED_ON: True})


def main(
    program: str,
    verbs: Mapping[str, Verb],
    *,
    argv: Sequence[str],
    about: str | None,
    moved: Mapping[str, str] | None = None,
) -> int:
    """Runs `[flags] [verb] [flags] [-- passed on]` and returns the exit code.

    Args:
        program: what follows `python -m`.
        verbs: by name; the first is that of a command line without a verb.
        argv: the command line, program first, as `sys.argv`.
        about: what `--help` begins with.
        moved: verbs of earlier releases, and the commands that took their place.
    """
    words = list(argv[1:])
    cut = words.index("--") if "--" in words else len(words)
    own, beam_words = words[:cut], words[cut + 1 :]

    def run() -> None:
        if {"--help", "-h"} & {*own}:
            named = next((word for word in own if word in verbs), None)
            with contextlib.suppress(BrokenPipeError):  # `--help | head`
                print(_help(program, verbs, named, about or ""))
            return
        verb, options = _parse(program, verbs, own, beam_words, moved or {})
        verb.run(options)

    return console.exit_code(run)


def repeated(program: str, verb: str) -> str:
    """Returns the command line of this process for another verb with the same flags."""
    return console.command(program, verb, **_given)


def flags_of(options: type) -> flags.FlagValues:
    """Returns the flags of a verb that takes a dataclass; nothing is parsed yet."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # the verb may stand before the flags
    for name, field, default in _fields(options, {}):
        flag: _Flag = field.metadata[_FLAG]
        help = flag.help
        if default is MISSING:
            help, default = f"{help} It must be given.", None
        elif flag.read and default is not None:
            default = str(default)
        settings = {"flag_values": values, "help": help, "default": default}
        if flag.choices:
            flags.DEFINE_enum(name, enum_values=flag.choices, **settings)
        elif flag.repeated:
            flags.DEFINE_multi_string(name, **settings)
        else:
            kind = str if flag.read else _plain(field.type)
            _DEFINE[kind](name, **settings, **flag.bounds)
    for name, help in _VOICE.items():
        flags.DEFINE_bool(name, False, help, flag_values=values)
    return values


def _fields(
    options: type, defaults: Mapping[str, Any]
) -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """Yields each flag's name, field and default, those of groups among them."""
    for field in dataclasses.fields(options):
        if _GROUP in field.metadata:
            members = field.metadata[_GROUP]
            yield from _fields(members.options, members.defaults)
        elif _FLAG in field.metadata:
            name = field.metadata[_FLAG].name or field.name
            yield name, field, defaults.get(field.name, field.default)


def _plain(kind: Any) -> type:
    """Returns `int` of `int | None`."""
    return next(one for one in typing.get_args(kind) or (kind,) if one in _DEFINE)


def _parse(
    program: str,
    verbs: Mapping[str, Verb],
    words: Sequence[str],
    beam_words: Sequence[str],
    moved: Mapping[str, str],
) -> tuple[Verb, Any]:
    """Returns the verb of a command line, and its options.

    Raises:
        UsageError: the words are no command line of this program.
    """
    # Before the flags: those of a verb that has moved are unknown here.
    if command := moved.get("".join(words[:1])):
        raise UsageError(f"the verb {words[0]!r} has moved: use `{command}`")
    known = {name: flags_of(verb.options) for name, verb in verbs.items()}
    hint = f"`python -m {program} --help` lists the verbs"
    try:
        name = _verb_of(words, known)
        hint = f"`python -m {program} {name} --help` lists its flags"
        _parse_flags(known[name], words, known, f"{name} has no flag")
        console.set_voice(quiet=known[name].quiet, debug=known[name].debug)
        _given.update(_texts(known[name]))
        options = _build(verbs[name].options, known[name], {}, beam_words)
    except (flags.Error, ValueError, UsageError) as error:
        raise UsageError(f"{error} ({hint})") from error
    return verbs[name], options


def _verb_of(words: Sequence[str], known: Mapping[str, flags.FlagValues]) -> str:
    """Returns the verb: the one word that is neither a flag nor the value of a flag.

    Raises:
        UsageError: there are more of them, or there is no such verb.
    """
    every = flags.FlagValues()
    every.set_gnu_getopt(True)
    for own in known.values():
        for flag in {*own} - {*every}:
            # All that matters here is whether a value follows.
            define = flags.DEFINE_bool if own[flag].boolean else flags.DEFINE_string
            define(flag, None, "", flag_values=every)
    found = _parse_flags(every, words, known, "no verb has a flag")
    name, *stray = found or [next(iter(known))]
    if name not in known:
        near = difflib.get_close_matches(name, known)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no verb {name!r}: there are {', '.join(known)}{meant}")
    if stray:
        raise UsageError(f"stray words after {name!r}: {' '.join(stray)}")
    return name


def _parse_flags(
    values: flags.FlagValues,
    words: Sequence[str],
    known: Mapping[str, flags.FlagValues],
    complaint: str,
) -> list[str]:
    """Parses words into `values`, and returns those that are no flags.

    Args:
        values: takes the values.
        words: the command line without the program.
        known: the flags of every verb.
        complaint: begins the message about a flag that is not in `values`.

    Raises:
        UsageError: there is no such flag in `values`.
        flags.Error: a value is missing, or is none that the flag takes.
    """
    try:
        return values(["", *words])[1:]
    except flags.UnrecognizedFlagError as error:
        flag = error.flagname
        having = [verb for verb, own in known.items() if flag in own]
        near = difflib.get_close_matches(flag, [*values])
        text = f"{complaint} --{flag}"
        if having:
            text += f"; {' and '.join(having)} {'have' if having[1:] else 'has'} it"
        elif near:
            text += f"; did you mean --{near[0]}?"
        raise UsageError(text) from error


def _texts(values: flags.FlagValues) -> Iterator[tuple[str, str]]:
    """Yields the flags that were given, but for those of the voice."""
    for name in values:
        value = values[name].value
        if values[name].present and name not in _VOICE:
            yield name, ",".join(value) if isinstance(value, list) else str(value)


def _build(
    options: type,
    values: flags.FlagValues,
    defaults: Mapping[str, Any],
    beam_words: Sequence[str] = (),
) -> Any:
    """Makes the dataclass of a verb, or of a group, of parsed flags.

    Raises:
        UsageError: a flag is missing or empty, or words follow `--` for nobody.
        ValueError: the dataclass refuses the values.
    """
    given = dict(defaults)
    missing = []
    for field in dataclasses.fields(options):
        if _GROUP in field.metadata:
            members: _Group = field.metadata[_GROUP]
            made = _build(members.options, values, members.defaults)
            given[field.name] = members.convert(made)
        elif _PASSED_ON in field.metadata:
            given[field.name], beam_words = tuple(beam_words), ()
        elif _FLAG in field.metadata:
            flag: _Flag = field.metadata[_FLAG]
            name = flag.name or field.name
            value, default = values[name].value, given.get(field.name, field.default)
            # An empty text, as of an unset variable, stands for no flag at all.
            absent = not values[name].present or value == ""
            if absent and default is MISSING:
                missing.append(f"--{name}")
            elif value == "" and default is not None:
                raise UsageError(f"--{name} is empty; leave it out for its default")
            elif not absent:
                given[field.name] = flag.read(value, name) if flag.read else value
    if missing:
        raise UsageError(f"missing {' and '.join(missing)}")
    if beam_words:
        raise UsageError(f"nothing takes what follows `--`: {' '.join(beam_words)}")
    return options(**given)


def _help(
    program: str, verbs: Mapping[str, Verb], named: str | None, about: str
) -> str:
    """Returns the help of a verb, or of a program and its main verb."""
    name = named or next(iter(verbs))
    options, run = verbs[name]
    lines = [f"python -m {program} {name}: {inspect.getdoc(run)}"]
    if not named:
        width = max(map(len, verbs))
        lines = [
            about.strip(),
            "",
            *(f"    {verb:<{width}}  {_line(verbs[verb].run)}" for verb in verbs),
            "",
            f"`python -m {program} VERB --help` lists the flags of a verb. A command",
            f"line without a verb means {name}, whose flags are:",
        ]
    listed = flags_of(options).get_help(include_special_flags=False)
    _, _, listed = listed.strip().partition("\n")  # the module that defines them
    lines += ["", listed]
    if any(_PASSED_ON in field.metadata for field in dataclasses.fields(options)):
        lines += ["", "What follows the first `--` goes to Beam."]
    return "\n".join(lines)


def _line(run: Callable[[Any], None]) -> str:
    return (inspect.getdoc(run) or "").partition("\n")[0]
