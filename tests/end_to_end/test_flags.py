"""The verbs of every program, their flags, and what the programs say of wrong ones."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest

from pipeline.system import command_line
from tests.support.files import REPOSITORY

SHARDS = """
    images manifest classes layout id_column label_column dataset height width resize
    quality chroma max_pixels shards
    validation_fraction labelled_test seed max_reject_fraction image_timeout workers
    runner overwrite append
"""
RECIPE = """
    recipe epochs batch_size head_epochs head_learning_rate learning_rate warmup_epochs
    label_smoothing class_weights trainable precision augmentation jit
    steps_per_execution accumulate tf32
"""
TRAIN = """
    dataset model weights extend seed cache cache_dir feature_dtype virtual_devices cpu
    all_reduce save_minutes keep_snapshots hang_minutes
"""
SHARD_CACHE = "shard_cache shard_cache_bytes"
FLAGS = {
    "pipeline": {
        "shards": SHARDS,
        "retry": "dataset images max_pixels image_timeout workers runner",
        "plan": SHARDS,
        "verify": "dataset workers",
        "inspect": "dataset inspect id near_copies images workers",
    },
    "trainer": {
        "train": f"{TRAIN} {RECIPE} {SHARD_CACHE}",
        "doctor": f"dataset model cache cache_dir feature_dtype {RECIPE} {SHARD_CACHE}",
        "curves": "model",
        "export": "model",
        "report": "model evaluation dataset",
    },
    "predictor": {
        "predict": f"""
            model predictions format top_k compression parquet dataset images split
            sample_submission max_reject_fraction batch_size writers virtual_devices cpu
            workers runner {SHARD_CACHE}
        """,
        "evaluate": f"""
            evaluation model dataset split predictions labels batch_size virtual_devices
            cpu {SHARD_CACHE}
        """,
        "verify": f"predictions dataset model workers {SHARD_CACHE}",
    },
}
VOICE = {"quiet", "debug"}  # of every verb
# Flags of each program before they belonged to verbs.
EARLIER = {
    "pipeline": """
        chroma classes dataset height image_timeout images labelled_test manifest
        max_reject_fraction overwrite quality resize runner seed shards
        validation_fraction width workers
    """,
    "trainer": """
        accumulate all_reduce augmentation batch_size cache cache_dir class_weights cpu
        dataset epochs feature_dtype hang_minutes head_epochs head_learning_rate jit
        keep_snapshots label_smoothing learning_rate model precision recipe save_minutes
        seed shard_cache shard_cache_bytes steps_per_execution trainable virtual_devices
        warmup_epochs weights
    """,
    "predictor": """
        batch_size compression cpu dataset evaluation format images labels
        max_reject_fraction model parquet predictions runner sample_submission
        shard_cache shard_cache_bytes split top_k virtual_devices workers writers
    """,
}
# A flag, the verb it is given to, and the verbs that have it.
OTHERS = [
    ("pipeline", "verify", "--height=3", "shards and plan have it"),
    ("pipeline", "verify", "--overwrite", "shards and plan have it"),
    ("trainer", "doctor", "--weights=none", "train has it"),
    ("trainer", "curves", "--epochs=3", "train and doctor have it"),
    ("predictor", "verify", "--split=test", "predict and evaluate have it"),
    ("predictor", "evaluate", "--workers=2", "predict and verify have it"),
]


def verbs_of(program: str) -> dict[str, command_line.Verb]:
    return importlib.import_module(f"{program}.__main__").VERBS


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
        check=False,
    )


def listed(text: str) -> set[str]:
    return set(re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("program", FLAGS)
def test_flags_of_verbs(program: str) -> None:
    found = {
        verb: {*command_line.flags_of(options)}
        for verb, (options, _) in verbs_of(program).items()
    }
    assert found == {
        verb: {*names.split()} | VOICE for verb, names in FLAGS[program].items()
    }
    assert [*found] == [*FLAGS[program]]  # the main verb comes first


@pytest.mark.parametrize("program", FLAGS)
def test_a_flag_takes_a_value_in_every_verb_or_in_none(program: str) -> None:
    """The verb is looked for before it is known whose flags are given."""
    kinds: dict[str, set[bool]] = {}
    for options, _ in verbs_of(program).values():
        flags = command_line.flags_of(options)
        for name in flags:
            kinds.setdefault(name, set()).add(flags[name].boolean)
    assert {name for name, kind in kinds.items() if len(kind) > 1} == set()


@pytest.mark.parametrize("program", FLAGS)
def test_no_flag_was_lost(program: str) -> None:
    now = set().union(*(names.split() for names in FLAGS[program].values()))
    assert {*EARLIER[program].split()} - now == set()


@pytest.mark.parametrize(
    ("program", "verb"), [(name, verb) for name in FLAGS for verb in FLAGS[name]]
)
def test_help_texts_are_sentences_that_name_the_default(
    program: str, verb: str
) -> None:
    flags = command_line.flags_of(verbs_of(program)[verb].options)
    for name in flags:
        # Between what absl adds: `<words>: ` and `;\n    repeat this option …`.
        text = re.sub(r"^<.+?>: |;\n    repeat this.*", "", flags[name].help)
        assert re.fullmatch(r"[A-Z][a-z]+s .*\.", text, re.DOTALL), (name, text)
        if flags[name].default is None:
            assert re.search(r"must be given|[Bb]y default", text), name


@pytest.mark.parametrize("program", FLAGS)
def test_help(program: str) -> None:
    main, *others = FLAGS[program]
    result = run(program, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for verb in FLAGS[program]:
        assert re.search(rf"^    {verb} +[A-Z].+\.$", result.stdout, re.MULTILINE)
    assert listed(result.stdout) == {*FLAGS[program][main].split()} | VOICE
    for verb in others:
        result = run(program, verb, "--help")
        assert result.stdout.startswith(f"python -m {program} {verb}: ")
        assert listed(result.stdout) == {*FLAGS[program][verb].split()} | VOICE


@pytest.mark.parametrize(("program", "verb", "flag", "said"), OTHERS)
def test_a_flag_of_another_verb_is_refused(
    program: str, verb: str, flag: str, said: str
) -> None:
    name = flag.partition("=")[0]
    for words in ((verb, flag), (flag, verb)):
        result = run(program, *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == (
            f"error: {verb} has no flag {name}; {said} (`python -m {program} {verb} "
            "--help` lists its flags)\n"
        )


@pytest.mark.parametrize("program", FLAGS)
def test_a_flag_of_no_verb_is_refused(program: str) -> None:
    result = run(program, "--datsaet=x")
    assert (result.returncode, result.stdout) == (2, "")
    assert "no verb has a flag --datsaet; did you mean --dataset?" in result.stderr


@pytest.mark.parametrize("program", FLAGS)
def test_help_into_a_pipe_that_is_closed(program: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m {program} --help | head -3"
    result = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 3
