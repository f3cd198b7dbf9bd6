"""The page of a dataset: what is in it, whatever the dataset is like."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline import additions, inspect_dataset, preprocess
from pipeline.dataset import ledger, manifest, record
from pipeline.dataset.ledger import Reject
from pipeline.dataset.manifest import ImageContract
from pipeline.options import InspectOptions, ShardsOptions
from pipeline.storage import atomic
from pipeline.system.errors import RunError, UsageError
from tests.support import html_pages
from tests.support.files import REPOSITORY, tree
from tests.support.html_pages import Browser, Page
from tests.support.photos import CLASSES, HEIGHT, TEST, WIDTH, jpeg, photo
from tests.support.processes import Program

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(2)',
    "{{ 7 * 7 }}{% include 'x' %}",
    "&lt;b&gt; & co",
    "برج خليفة",
    "x" * 180,
)


def shards(images: Path, dataset: Path, **options: object) -> Path:
    settings = {"max_reject_fraction": 0.9, "workers": 1, **options}
    contract = ImageContract(height=HEIGHT, width=WIDTH)
    preprocess.run(
        ShardsOptions(images=images, dataset=dataset, contract=contract, **settings)
    )
    return dataset


def inspected(dataset: Path, **options: object) -> tuple[str, Page]:
    """The page of a dataset, held to what every page is held to."""
    before = tree(dataset)
    inspect_dataset.run(InspectOptions(dataset=dataset, **options))
    path = options.get("page") or dataset.with_name(f"{dataset.name}.inspect.html")
    text = Path(path).read_text()
    assert tree(dataset) == before
    return text, html_pages.check(text)


def stored(dataset: Path) -> set[bytes]:
    return {
        found.record.encoded
        for path in dataset.glob("*.tfrecord")
        for found in record.read(path)
    }


def pictures(page: Page, of: str) -> list[bytes]:
    """The JPEGs whose text ends so."""
    images = [dict(of_one) for of_one in page.elements("img")]
    return [
        base64.b64decode(image["src"].partition(",")[2])
        for image in images
        if image["alt"].endswith(of)
    ]


def test_the_page_of_a_dataset(dataset: Path, images: Path) -> None:
    _, page = inspected(dataset, images=images)
    value = manifest.read(dataset)
    listed = sum(one["listed"] for one in value["ledger"]["splits"].values())
    assert page.of("b")[:3] == [str(listed), str(listed - 2), "2"]
    assert {*CLASSES} <= {*page.of("bdi")}
    assert "no labels" in page.of("td")  # test
    # The stored bytes themselves, 3 of each class and all of test; their originals.
    shown = pictures(page, "as it is stored")
    assert len(shown) == 3 * 2 * 3 + TEST
    assert set(shown) <= stored(dataset)
    assert len(pictures(page, "the original")) == len(shown)
    # Of a photo that was cut short there is something to see, of a text nothing.
    assert len(pictures(page, "as far as it can be decoded")) == 1
    assert page.of("code").count("damaged") == 1
    assert page.of("code").count("not_an_image") == 1
    assert "red/cut.jpg" in page.of("bdi")


def test_without_originals_it_says_how_to_show_them(dataset: Path) -> None:
    _, page = inspected(dataset)
    assert pictures(page, "the original") == []
    assert "make inspect IMAGES=…" in page.of("code")


def test_originals_are_where_the_run_found_them(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IMAGES was given relative to another folder."""
    monkeypatch.chdir(images.parent)
    dataset = shards(Path(images.name), tmp_path / "dataset")
    monkeypatch.chdir(tmp_path)
    _, page = inspected(dataset)
    assert len(pictures(page, "the original")) == 3 * 2 * 3 + TEST


def test_copies_and_two_labels(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for place in ("train/a/1.jpg", "validation/a/same.jpg", "train/b/other.jpg"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(jpeg(photo(0, 1)))
    for number, place in enumerate(("train/a/2.jpg", "train/B-/1.jpg")):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(jpeg(photo(1, number)))
    text, page = inspected(shards(root, tmp_path / "dataset"))
    assert "2 images are copies of another one" in page.shown
    assert "1 photos are in more than one split" in page.shown
    assert "3 images have the bytes of another one and another label" in page.shown
    headings = page.of("h3")
    assert {"In more than one split", "With two labels", "Alike in name"} <= {*headings}
    assert {"In train alone"} <= {*headings}  # b, B-
    assert text.count("1.jpg, the original") >= 3  # its class, across, two labels


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of classes and ids that would break out of it."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(HOSTILE):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(2):
            path = folder / "images" / name / f"{HOSTILE[index]}{index}.jpg"
            path.write_bytes(jpeg(photo(number % 3, 10 * number + index)))
        (folder / "images" / name / "no photo.jpg").write_text(
            "<script>alert(3)</script>"
        )
    text, _ = inspected(shards(folder / "images", folder / "dataset"))
    return text


def test_names_are_text_and_nothing_else(hostile: str) -> None:
    page = html_pages.check(hostile)
    assert {*HOSTILE} <= {*page.of("bdi")}
    assert f"{HOSTILE[0]}/{HOSTILE[1]}1.jpg" in page.of("bdi")


def test_a_browser_shows_it(hostile: str, browser: Browser) -> None:
    """What a script of a name would have done is not done; the pictures are drawn."""
    seen = Page(browser.dom(hostile))
    assert {*HOSTILE} <= {*seen.of("bdi")}
    assert seen.tags["script"] == 0
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    light, dark = browser.colours(hostile), browser.colours(hostile, dark=True)
    assert (0xFF, 0xFF, 0xFF) in light
    assert (0x14, 0x17, 0x1C) in dark
    assert (0xFF, 0xFF, 0xFF) not in dark


def test_only_an_unlabelled_split(tmp_path: Path, images: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(images / "test", root / "test")
    _, page = inspected(shards(root, tmp_path / "dataset"))
    assert "Classes" not in page.of("h2")
    assert len(pictures(page, "as it is stored")) == TEST


def test_a_split_of_which_nothing_was_written(tmp_path: Path, images: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(images / "train", root / "train")
    (root / "test").mkdir()
    (root / "test" / "page.jpg").write_text("no photo")
    _, page = inspected(shards(root, tmp_path / "dataset"))
    assert "0 of 0 images were looked at" in " ".join(page.shown.split())


def test_a_dataset_of_release_0_1(tmp_path: Path) -> None:
    """It has no histograms, no conflicts, and ignored files are not told apart."""
    source = REPOSITORY / "tests" / "testdata" / "release-0.1" / "finished" / "dataset"
    _, page = inspected(Path(shutil.copytree(source, tmp_path / "dataset")))
    assert "What the originals were like" not in page.of("h2")
    assert "1 photos are in more than one split" in page.shown


def test_a_damaged_shard_is_named(dataset: Path) -> None:
    path = dataset / "train-00000-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    _, page = inspected(dataset)
    (line,) = (x for x in page.of("p") if "is damaged" in x)
    assert f"{path.name}: record " in line


def test_a_million_images_of_15000_classes_are_a_small_page(
    tmp_path: Path, made_dataset: Path
) -> None:
    """Entries are made up; 1,000 shards are one. Ids and details are long."""
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    classes = [f"landmark {number}" for number in range(15_000)]
    value = json.loads((made_dataset / "dataset.json").read_text())
    sizes = [1 + 8_000 // (1 + n) ** 2 + n % 133 for n in range(15_000)]
    (entry, *_) = value["splits"]["train"]["shards"]
    names = [manifest.shard_name("train", n, 1000) for n in range(1000)]
    for name in names:
        os.link(made_dataset / entry["file"], dataset / name)
    counts = {
        name: {"listed": n, "written": n, "rejected": 0}
        for name, n in zip(classes, sizes, strict=True)
    }
    total = sum(sizes)
    rejects = [
        Reject(f"{'x' * 250}{n}.jpg", "train", "", "damaged", "y" * 2000)
        for n in range(9_999)
    ]
    files = {
        "classes.txt": manifest.classes_text(tuple(classes)),
        "rejects.csv": ledger.rejects_csv(rejects),
    }
    for name, text in files.items():
        (dataset / name).write_text(text)
    group = [f"train/{'z' * 200}{n}.jpg" for n in range(500)] + ["test/z.jpg"]
    value |= {
        "classes": manifest.classes_entry(tuple(classes)),
        "files": {name: atomic.sha256_text(text) for name, text in files.items()},
        "splits": {
            "train": {
                "examples": total,
                "rejected": len(rejects),
                "shards": [{**entry, "file": name} for name in names],
            }
        },
        "ledger": {
            **value["ledger"],
            "splits": {
                "train": {
                    "listed": total + len(rejects),
                    "written": total,
                    "rejected": len(rejects),
                    "reasons": {"damaged": len(rejects)},
                    "classes": counts,
                }
            },
            "duplicates": {
                "images": 500,
                "groups": [group] * 99,
                "across_splits": [group] * 99,
            },
        },
    }
    (dataset / "dataset.json").write_text(json.dumps(value))
    text, page = inspected(dataset)
    assert len(text) < 1_000_000
    assert page.tags["tr"] < 100
    assert f"{total:,}" in page.of("b")
    assert "15,000 classes." in page.shown


def test_it_replaces_its_own_page_and_no_other_file(
    dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.html"
    inspected(dataset, page=path)
    inspected(dataset, page=path)
    path.write_text("<!DOCTYPE html>a page of mine")
    with pytest.raises(RunError, match=r"mine\.html is there already, and `make insp"):
        inspect_dataset.run(InspectOptions(dataset=dataset, page=path))
    assert path.read_text().endswith("of mine")
    with pytest.raises(RunError, match="nowhere is no folder"):
        inspected(dataset, page=tmp_path / "nowhere" / "page.html")


def test_a_dataset_holds_no_page(dataset: Path) -> None:
    with pytest.raises(UsageError, match="which holds its own files"):
        inspect_dataset.run(InspectOptions(dataset=dataset, page=dataset / "i.html"))
    assert not (dataset / "i.html").exists()


def test_one_image_as_text(
    dataset: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(image_id: str) -> str:
        options = InspectOptions(dataset=dataset, images=images, id=image_id)
        inspect_dataset.run(options)
        return capsys.readouterr().out

    text = said("red/00.jpg")  # of train and of validation
    assert text.count("class     'red' (label 2)") == 2
    assert "split     train\n" in text
    assert f"original  {images / 'train' / 'red' / '00.jpg'}\n" in text
    assert f"{HEIGHT}x{WIDTH} (height x width), jpeg" in text
    assert "rejected  not_an_image: " in said("page.jpg")
    with pytest.raises(RunError, match=r"has no image 'red/nowhere\.jpg', neither"):
        said("red/nowhere.jpg")
    assert not list(dataset.parent.glob("*.html"))
    with pytest.raises(ValueError, match="leave out --inspect and --near_copies"):
        InspectOptions(dataset=dataset, id="x", near_copies=True)


def test_without_the_libraries_of_pages(
    dataset: Path, tmp_path: Path, program: Program
) -> None:
    """A worker's installation has no Jinja2."""
    (tmp_path / "jinja2.py").write_text(
        "raise ModuleNotFoundError('No module named jinja2', name='jinja2')"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = ("pipeline", "inspect", f"--dataset={dataset}")
    result = program(*words, env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 1
    assert "inspect needs jinja2: install the extra `train`" in result.stderr


def test_classes_that_were_added_later_are_shown(tmp_path: Path) -> None:
    """Their images are in the last shards."""
    images = tmp_path / "images"

    def add(name: str) -> None:
        (images / "train" / name).mkdir(parents=True)
        for index in range(9):
            data = jpeg(photo(index % 3, index, 60, 50))
            (images / "train" / name / f"{index}.jpg").write_bytes(data)

    add("blue")
    dataset = shards(images, tmp_path / "dataset", shards=9)
    add("zebra")
    additions.append(
        ShardsOptions(
            images=images,
            dataset=dataset,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=6,
            workers=1,
            append=True,
        )
    )
    assert len(manifest.load(dataset).split("train").shards) == 15
    html, _ = inspected(dataset)
    assert "zebra/" in html


@pytest.mark.parametrize("content", [b"id,split\nx,train\n", b"\xff\xfe"])
def test_a_damaged_list_of_conflicts(tmp_path: Path, images: Path, content) -> None:
    dataset = shards(images, tmp_path / "dataset")
    facts_of = inspect_dataset.Facts.read
    (dataset / manifest.CONFLICTS).write_bytes(content)
    with pytest.raises(RunError):
        facts_of(dataset)


def test_originals_that_are_not_there_are_not_announced(
    tmp_path: Path, images: Path
) -> None:
    dataset = shards(images, tmp_path / "dataset")
    html, _ = inspected(dataset, images=tmp_path / "nowhere")
    assert "the photo that they were made of" not in html
    assert "The originals were not found" in html


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path, images: Path) -> None:
    dataset = shards(images, tmp_path / "d\udce9s")
    html, _ = inspected(dataset)
    assert "d\\udce9s" in html
