"""Size and opening time of a report page with 10,000 pictures.

    python benchmarks/report.py

Crops of scikit-image's photographs stand in for drawn images: 100 classes, two methods, 50 each. Wants Chromium and
chromedriver. Each opening uses a new browser; the page is in the disk's cache.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from bob import store
from bob.commands import console, report
from bob.core.settings import DrawSettings
from tests import drawings
from tests.browser import chromium

CLASSES = tuple(f"class {k:03d}" for k in range(100))
EACH = 50
SIDE = 128
OPENINGS = 5
PHOTOS = [np.asarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]

BUTTONS = "document.querySelectorAll('#grid button').length"
FILTER = """(() => {
  const begun = performance.now(), field = document.querySelector('[name=prompt]');
  field.value = 'class 057';
  field.dispatchEvent(new Event('input', {bubbles: true}));
  document.body.offsetHeight;
  return [performance.now() - begun, document.querySelectorAll('#grid button').length];
})()"""


def crop(class_id: int, index: int) -> Image.Image:
    rng = np.random.default_rng([class_id, index])
    photo = PHOTOS[rng.integers(len(PHOTOS))]
    top, left = (rng.integers(0, length - SIDE) for length in photo.shape[:2])
    return Image.fromarray(photo[top : top + SIDE, left : left + SIDE])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        artefacts = store.Store(f"{folder}/out")
        photos = drawings.listed(Path(folder, "photos"), CLASSES)
        for method in ("bob", "datadream"):
            run = drawings.run(photos, method=method, draw=DrawSettings(per_class=EACH, unit=100))
            prompt = {"prompt": "a photo of a {name} in the sea background {index} with the flying pose."}
            drawings.draw(artefacts, run, paint=crop, background="sea {index}", pose="flying", **prompt)
        start = time.monotonic()
        page = report.write(artefacts, limit=10_400)
        print(f"{page.pictures:,} pictures, {console.amount(page.size)}, written in {time.monotonic() - start:.1f} s")
        opened, filtered = [], []
        for _ in range(OPENINGS):
            with chromium() as browser:
                start = time.monotonic()
                browser.open(Path(page.place))
                assert browser.ask(BUTTONS) >= 240
                opened.append(time.monotonic() - start)
                milliseconds, buttons = browser.ask(FILTER)
                assert buttons == 2 * EACH
                filtered.append(milliseconds)
                assert browser.console() == []
        print(f"opened, first pictures built: {statistics.median(opened):.2f} s (median of {OPENINGS})")
        print(f"filtered by prompt: {statistics.median(filtered):.0f} ms")


if __name__ == "__main__":
    main()
