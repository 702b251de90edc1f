"""`bob report`: the page's contents, and how a real browser shows it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from bob import cli, store
from bob.commands import report
from bob.core.settings import DrawSettings
from bob.paper import layouts, render
from bob.store import schema, tables
from tests import drawings
from tests.browser import Browser, chromium

EVIL = "<script>alert(1)</script>"
CLASSES = (EVIL, "a \"quoted\" & 'wry' bird", "Heron")
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><script>parent.document.title="owned"</script>'
    b'<image href="https://example.org/x.png" width="9" height="9"/><rect width="40" height="30" fill="red"/></svg>'
)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> store.Store:
    """Two methods on a data set with terrible names, in a folder with a worse one; not to be changed."""
    root = tmp_path_factory.mktemp("report") / 'it\'s "quoted" <b>&amp;'
    artefacts = store.Store(str(root / "out"))
    data = drawings.listed(root / "photos", CLASSES)
    few = DrawSettings(per_class=4, unit=5)
    said: dict[str, Any] = {
        "background": "the {index} sea",
        "pose": EVIL,
        "prompt": "a {name} </script> at sea {index}",
    }
    drawings.draw(artefacts, drawings.run(data, draw=few), **said)
    mixed: dict[str, Any] = {"label_ids": (0, 1), "label_weights": (0.3, 0.7), "kind": "img2img", "strength": 0.25}
    drawings.draw(artefacts, drawings.run(data, method="diff_mix", draw=few), source_ids=True, **mixed)
    cell = {"table": "t", "column": "5-shot", "ours_std": None, "seeds": 1, "paper": 70.0, "difference": -2.5}
    rows = [
        cell | {"row": f"mini / {EVIL} / sd", "ours": 67.5},
        cell | {"row": "mini / bo|b / sd", "ours": 66.0, "paper": None, "difference": None},
    ]
    table = tables.from_rows(
        [*rows, cell | {"row": "mini / real_only / ", "ours": None, "difference": None}], schema.TABLES
    )
    artefacts.write("tables/t.md", render.markdown(table, layouts.PLAIN).encode())
    artefacts.write("figures/curve.svg", SVG)
    return artefacts


@pytest.fixture(scope="module")
def page(held: store.Store) -> Path:
    return Path(report.write(held).place)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def data_of(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def wait(browser: Browser, condition: str) -> None:
    WebDriverWait(browser.driver, 20).until(lambda _: browser.ask(condition), condition)


def buttons(browser: Browser) -> int:
    return browser.ask("document.querySelectorAll('#grid button').length")


def focused(browser: Browser) -> str:
    return browser.ask("document.activeElement.dataset.place ?? document.activeElement.id")


def detail(browser: Browser) -> dict[str, str]:
    names, texts = (
        [e.text for e in browser.driver.find_elements(By.CSS_SELECTOR, f"#detail {t}")] for t in ("dt", "dd")
    )
    return dict(zip(names, texts, strict=True))


def fill(browser: Browser, name: str, text: str) -> str:
    """Chooses or writes in a filter: what is then said of the count."""
    field = browser.driver.find_element(By.NAME, name)
    field.send_keys(text)
    return browser.ask("document.getElementById('count').textContent")


def test_what_users_name_is_text(held, page):
    text = page.read_text()
    assert "<script>alert" not in text
    assert text.count("</script>") == 3  # ours
    assert "it&#x27;s &quot;quoted&quot; &lt;b&gt;" in text
    escaped = EVIL.replace("<", "&lt;").replace(">", "&gt;")
    assert f"<td>{escaped}</td><td>sd</td><td><b>67.50<small>paper 70.00, -2.50</small></b></td>" in text
    assert "<td>bo|b</td><td>sd</td><td><u>66.00</u></td>" in text
    assert "<td>real_only</td><td></td><td>-<small>paper 70.00</small></td>" in text
    assert "<th scope=col>5-shot</th>" in text


def test_the_same_store_gives_the_same_page(held, page, tmp_path):
    again = report.write(held, to=str(tmp_path / "deep" / "again.html"))
    assert Path(again.place).read_bytes() == page.read_bytes()
    assert (again.pictures, again.tables, again.figures, again.size) == (3 * (2 + 4 + 4), 1, 1, page.stat().st_size)


def test_all_can_be_read_without_an_error(page, browser):
    browser.open(page)
    assert browser.console() == []
    assert browser.ask("document.title").endswith("""it's "quoted" <b>&amp;/out""")
    assert browser.ask("document.getElementById('count').textContent") == "30 of 30 pictures."
    assert [e.text for e in browser.driver.find_elements(By.CSS_SELECTOR, "#grid h3")] == list(CLASSES)
    wait(browser, "[...document.images].filter(i => i.id !== 'detail-image').every(i => i.complete && i.naturalWidth)")
    assert browser.ask("document.images.length") == 30 + 1 + 1  # the pictures, the figure, that of the dialog
    fetched = browser.ask("performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^data:/.test(n))")
    assert fetched == []


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"method": "diff_mix"}, 12),
        ({"method": "real images"}, 6),
        ({"class": EVIL}, 10),
        ({"class": EVIL, "method": "bob"}, 4),
        ({"background": "2 SEA"}, 3),
        ({"pose": "alert(1)"}, 12),
        ({"prompt": "at sea 3"}, 3),
        ({"prompt": "at sea 3", "class": "Heron"}, 1),
        ({"prompt": "no such words"}, 0),
    ],
)
def test_filters(page, browser, filters, count):
    browser.open(page)
    for name, text in filters.items():
        said = fill(browser, name, text)
    assert said == (f"{count} of 30 pictures." if count else "No picture fits these filters.")
    assert buttons(browser) == count
    browser.driver.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    wait(browser, "document.querySelectorAll('#grid button').length === 30")
    assert browser.console() == []


def test_a_picture_with_all_that_is_known_of_it(page, browser):
    browser.open(page)
    fill(browser, "method", "bob")
    browser.ask("document.querySelectorAll('#grid button')[5].click()")
    said = detail(browser)
    assert said["Prompt"] == f"a {CLASSES[1]} </script> at sea 1"
    assert (said["Background"], said["Pose"], said["Seed"]) == ("the 1 sea", EVIL, str(2**62 + 101))
    assert (said["Image"], said["Size"], said["Setting"]) == ("1-1", "24 × 24 px", "2-shot, seed 0")
    assert said["Drawn by"] == "text2img, guidance 2, 50 steps"
    assert "Source" not in said
    assert browser.ask("document.getElementById('detail-image').naturalWidth") == 24


def test_a_picture_shows_the_real_one_that_it_was_made_from(page, browser):
    browser.open(page)
    fill(browser, "method", "diff_mix")
    browser.ask("document.querySelectorAll('#grid button')[0].click()")
    said = detail(browser)
    assert said["Label"] == f"30 % {EVIL}, 70 % {CLASSES[1]}"
    assert said["Drawn by"] == "img2img, strength 0.25, guidance 2, 50 steps"
    assert said["Source"]
    wait(browser, "document.querySelector('#detail dd img').naturalWidth === 8")


def test_the_keyboard_alone_reaches_everything(page, browser):
    browser.open(page)
    browser.ask("document.querySelector('#filters button').focus()")
    browser.press(Keys.TAB)
    assert focused(browser) == "0"
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert focused(browser) == "3"  # below the second of two real images stands the second that BOB drew
    browser.press(Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert focused(browser) == "0"
    browser.press(Keys.END)
    assert focused(browser) == "29"
    browser.press(Keys.HOME, Keys.ARROW_RIGHT, Keys.ENTER)
    assert browser.ask("document.getElementById('detail').open")
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert detail(browser)["Image"] == "0-1"
    browser.press(*[Keys.ARROW_LEFT] * 4, *[Keys.ARROW_RIGHT] * 3)  # at the first, the button back is disabled
    assert detail(browser)["Image"] == "0-1"
    browser.press(Keys.ESCAPE)
    wait(browser, "!document.getElementById('detail').open")
    assert focused(browser) == "3"
    assert browser.console() == []


def test_light_and_dark(page, browser):
    colours = {}
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        colour = "getComputedStyle(document.body).backgroundColor"
        colours[scheme] = browser.ask(colour)
        browser.driver.find_element(By.ID, "theme").click()
        colours[f"{scheme} turned"] = browser.ask(colour)
    assert colours["light"] == colours["dark turned"] == "rgb(251, 250, 248)"
    assert colours["dark"] == colours["light turned"] == "rgb(22, 24, 28)"


def test_a_telephone_need_not_scroll_sideways(page, browser):
    browser.open(page, width=360, height=740)
    assert browser.ask("document.documentElement.scrollWidth") == 360
    browser.ask("document.querySelectorAll('#grid button')[9].click()")
    box = browser.ask("document.getElementById('detail').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= 360
    assert browser.ask("document.getElementById('detail').scrollWidth <= document.getElementById('detail').clientWidth")


def test_pictures_are_built_as_they_come_near(tmp_path, browser):
    artefacts = store.Store(str(tmp_path / "out"))
    data = drawings.listed(tmp_path / "photos", ("a", "b"))
    drawings.draw(artefacts, drawings.run(data, draw=DrawSettings(per_class=600, unit=600)), paint=drawings.noise(4))
    browser.open(Path(report.write(artefacts).place))
    assert 240 <= buttons(browser) < 1204
    before = buttons(browser)
    browser.ask("document.getElementById('more').scrollIntoView()")
    wait(browser, f"document.querySelectorAll('#grid button').length > {before}")
    browser.ask("document.querySelector('#grid button').focus()")
    browser.press(Keys.END)
    assert focused(browser) == "1203"
    assert browser.console() == []


def test_of_too_many_the_first_of_each_set_and_class(tmp_path):
    artefacts = store.Store(str(tmp_path / "out"))
    data = drawings.listed(tmp_path / "photos", ("a", "b"))
    folder = drawings.draw(artefacts, drawings.run(data, draw=DrawSettings(per_class=20, unit=5)))
    artefacts.write(f"{folder}/part-00001.parquet", b"nobody looks into this one")
    made = report.write(artefacts, limit=12)
    assert made.pictures == 2 * 2 + 2 * 4
    found = data_of(Path(made.place))
    assert Counter(tuple(row[:2]) for row in found["images"]) == {(0, 0): 2, (0, 1): 2, (1, 0): 4, (1, 1): 4}
    names = [found["texts"][row[2]] for row in found["images"] if row[0] == 1]
    assert names == [f"{k}-{n}" for k in range(2) for n in range(4)]
    assert (
        "There are 44 images. The page shows 12 of them: the first 4 of each set and class."
        in Path(made.place).read_text()
    )
    assert report.write(artefacts, limit=1).pictures == 4  # one of each, at least


def test_what_is_not_there_is_said(tmp_path):
    artefacts = store.Store(str(tmp_path / "out"))
    data = drawings.listed(tmp_path / "photos", ("a", "b"))
    folder = drawings.draw(artefacts, drawings.run(data, draw=DrawSettings(per_class=6, unit=4)))
    artefacts.delete(f"{folder}/part-00001.parquet")
    (tmp_path / "photos" / "list.csv").unlink()
    made = report.write(artefacts)
    text = Path(made.place).read_text()
    assert made.pictures == 8
    assert "is not done: 2 of 3 shards are drawn." in text
    assert "The real images of folder:" in text
    assert "No tables yet" in text


@pytest.fixture
def bob(capsys, monkeypatch):
    def run(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr("sys.argv", ["bob", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_the_command(held, bob, tmp_path):
    code, out, err = bob("report", held.root, "--to", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/page.html: 30 pictures, 1 tables, 1 figures, ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{tmp}/nowhere"], "cannot list .*nowhere: .*Name a folder that `bob run` wrote to"),
        (["{tmp}/empty"], "nothing in .*empty can be shown: name a folder"),
        (["{out}", "--to", "{tmp}/empty"], "--to is a file, but .*empty is a folder"),
        (["{out}", "--to", "{tmp}/file/page.html"], "cannot write .*file/page.html: .*Choose another --to"),
        (["{out}", "--to", "s3://bucket/page.html"], "--to is a file on this machine, got 's3://bucket/page.html'"),
    ],
)
def test_mistakes(held, bob, tmp_path, arguments, expected):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    code, _, err = bob("report", *(word.format(tmp=tmp_path, out=held.root) for word in arguments))
    assert code == 2
    assert re.fullmatch(f"bob: .*{expected}.*\n", err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_a_damaged_picture_is_named_and_the_old_page_stays(tmp_path, bob):
    artefacts = store.Store(str(tmp_path / "out"))
    data = drawings.listed(tmp_path / "photos", ("a", "b"))
    folder = drawings.draw(artefacts, drawings.run(data))
    before = Path(report.write(artefacts).place).read_bytes()
    table = artefacts.read_table(f"{folder}/part-00000.parquet")
    broken = table.set_column(table.schema.get_field_index("image"), table.schema.field("image"), [[b"no", b"png"]])
    artefacts.write_table(f"{folder}/part-00000.parquet", broken, {})
    code, _, err = bob("report", artefacts.root)
    assert code == 2
    assert re.search(f"image 0-0 in {folder}/part-00000.parquet cannot be decoded .*: delete the file", err)
    assert (tmp_path / "out" / "report.html").read_bytes() == before


def test_requests_of_an_earlier_version_say_what_to_do(tmp_path, bob):
    artefacts = store.Store(str(tmp_path / "out"))
    folder = drawings.draw(artefacts, drawings.run(drawings.listed(tmp_path / "photos", ("a", "b"))))
    path = f"{folder}/requests.parquet"
    manifest = {name: value for name, value in artefacts.manifest(path).items() if name != "split"}
    artefacts.write_table(path, artefacts.read_table(path).replace_schema_metadata(None), manifest)
    assert "does not say which shots it was made from" in bob("report", artefacts.root)[2]
