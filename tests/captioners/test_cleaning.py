"""Cleaning of captioners' answers, and the check whether they name a class."""

import pytest

from bob.captioners._cleaning import clean, verbatim

AIRCRAFT = ("Boeing 737-800", "A380", "SR-20", "Global Express", "Zephyr")
BIRDS = ("House Sparrow", "Green Jay", "Sooty Albatross", "Cardinal")


@pytest.mark.parametrize(
    ("raw", "background"),
    [
        ("orange sunset", "orange sunset"),
        ("A clear blue sky with scattered clouds.", "clear blue sky with scattered clouds"),
        ("The background of the aircraft is a clear blue sky.", "clear blue sky"),
        ("the background behind an aircraft features: dark trees", "dark trees"),
        ("In the background, there are trees and buildings.", "trees and buildings"),
        ("Background: green foliage", "green foliage"),
        ("**Cloudy sky background**", "cloudy sky"),
        ("'Green grassy field'", "green grassy field"),
        ("A plain white background", "plain white"),
        ("an aircraft on snow, in the background", "snow"),
        ("Clear sky.\nThe aircraft is parked.", "clear sky"),
        ("\n\n  Grey   runway \n", "grey runway"),
        ("A 1.5 m tall fence. Grass.", "1.5 m tall fence"),
        ("UK landscape", "UK landscape"),
        (
            "The background features a runway, a control tower, several hangars and a range of mountains far behind.",
            "runway, a control tower, several hangars",
        ),
        ("one two three four five six seven eight nine ten eleven of the end", "one two three four five six seven"
         " eight nine ten eleven"),
        ("", "plain"),
        ("...", "plain"),
        ("The background.", "plain"),
    ],
)  # fmt: skip
def test_a_background_is_reduced_to_what_the_template_wants(raw, background):
    assert clean(raw, about="background", descriptor="aircraft", class_names=AIRCRAFT) == (background, False)


@pytest.mark.parametrize(
    ("raw", "pose"),
    [
        ("climbing left", "climbing left"),
        ("The pose of a bird is perched on a branch.", "perched on a branch"),
        ("A bird is perched on a branch, facing left", "perched on a branch, facing left"),
        ("A bird perched on a branch.", "perched on a branch"),
        ("A bird's pose is relaxed", "relaxed"),
        ("A bird of prey, gliding", "bird of prey, gliding"),
        ("In flight.", "in flight"),
        ("Flying position", "flying"),
        ("It is standing upright.", "standing upright"),
        ("", "typical"),
    ],
)
def test_a_pose_is_reduced_to_what_the_template_wants(raw, pose):
    assert clean(raw, about="pose", descriptor="bird", class_names=BIRDS) == (pose, False)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A Boeing 737 is flying over mountains.", "mountains"),
        ("runway behind the Boeing 737-800 aircraft", "runway behind a aircraft"),
        ("runway with an sr20 and A380s", "runway with a aircraft and a aircraft"),
        ("below a global express", "below a aircraft"),
        ("Zephyr", "aircraft"),
    ],
)
def test_a_class_that_is_named_becomes_the_descriptor(raw, text):
    assert clean(raw, about="background", descriptor="aircraft", class_names=AIRCRAFT) == (text, True)


@pytest.mark.parametrize("raw", ["house and green grass", "sooty wall", "global map", "20 people", "wire under birds"])
def test_common_words_of_a_class_name_leak_nothing(raw):
    assert clean(raw, about="background", descriptor="bird", class_names=BIRDS + AIRCRAFT) == (raw, False)


def test_a_sibling_is_a_leak_as_well_and_a_word_inside_another_is_none():
    words = {"about": "pose", "descriptor": "bird", "class_names": BIRDS}
    assert clean("the Cardinal's pose is upright", **words) == ("upright", True)
    assert clean("jaywalking", **words) == ("jaywalking", False)


@pytest.mark.parametrize("raw", ["", "x" * 400, "a " * 300, "(((", "\\", "日本語。", "the the the", "\x00", "A bird"])
@pytest.mark.parametrize("about", ["background", "pose"])
def test_whatever_is_answered_something_short_comes_out(raw, about):
    text, leaked = clean(raw, about=about, descriptor="bird", class_names=("C++ (odd)", "***", "bird"))
    assert 1 <= len(text.split()) <= 12
    assert not leaked


FIGHTERS = ("Boeing 737-800", "Tornado", "Eurofighter Typhoon", "Hawk T1", "Falcon 2000")
CARS = ("Volkswagen Beetle", "Dodge Ram Pickup 3500", "Ford Mustang", "Jeep Patriot")


@pytest.mark.parametrize(
    ("descriptor", "about", "raw", "text", "leaked"),
    [
        ("car", "background", "A car in a showroom", "showroom", False),
        ("car", "background", "The car is in a showroom.", "showroom", False),
        ("car", "background", "A car parked in front of a brick house", "brick house", False),
        ("car", "background", "A car surrounded by trees", "trees", False),
        ("car", "background", "parked cars on a street", "parked cars on a street", False),
        ("car", "background", "street with cars", "street with cars", False),
        ("car", "background", "car dealership", "car dealership", False),
        ("car", "background", "in a dimly lit garage", "dimly lit garage", False),
        ("car", "background", "beetle on a leaf", "beetle on a leaf", False),
        ("car", "background", "a Beetle on a street", "street", True),
        ("car", "background", "ram in a field", "ram in a field", False),
        ("car", "background", "The Ford Mustang is parked on a driveway.", "driveway", True),
        ("aircraft", "background", "a tornado in the sky", "tornado in the sky", False),
        ("aircraft", "background", "A Tornado in the sky", "sky", True),
        ("aircraft", "background", "tornado aircraft on a runway", "runway", True),
        ("aircraft", "background", "a hawk above the hangar", "hawk above the hangar", False),
        ("aircraft", "background", "The aircraft is parked on a runway.", "runway", False),
        ("aircraft", "background", "A Boeing 737-800 taking off over a forest", "forest", True),
        ("aircraft", "background", "on a grassy field", "grassy field", False),
        ("aircraft", "background", "Under a clear blue sky", "clear blue sky", False),
        ("aircraft", "background", "a blurry background of trees", "blurry trees", False),
        ("aircraft", "background", "A backdrop of snowy mountains", "snowy mountains", False),
        ("aircraft", "background", "An outdoor setting with trees", "outdoor setting with trees", False),
        ("aircraft", "background", "This is a cloudy sky", "cloudy sky", False),
        ("aircraft", "background", "It appears to be an airfield", "airfield", False),
        ("aircraft", "background", "building in a city", "building in a city", False),
        ("aircraft", "background", "winding road in a forest", "winding road in a forest", False),
        ("aircraft", "background", "airport tarmac at dusk", "airport tarmac at dusk", False),
        ("aircraft", "background", "outdoors", "outdoors", False),
        ("bird", "background", "a bird on a branch with green leaves", "branch with green leaves", False),
        ("bird", "background", "birds on a wire", "wire", False),
        ("bird", "background", "a cardinal on a branch", "branch", True),
        ("bird", "background", "perched on a fence", "fence", False),
        ("bird", "background", "a body of water", "body of water", False),
        ("bird", "background", "blurred green foliage", "blurred green foliage", False),
        ("bird", "pose", "in a sitting position", "sitting", False),
        ("bird", "pose", "The bird is in a side view.", "side view", False),
        ("bird", "pose", "a bird in flight", "in flight", False),
        ("bird", "pose", "perched on a branch", "perched on a branch", False),
        ("bird", "pose", "A bird is facing left with its wings spread", "facing left with its wings spread", False),
        ("bird", "pose", "in profile", "in profile", False),
        ("bird", "pose", "The Green Jay's pose is upright", "upright", True),
    ],
)
def test_plausible_answers(descriptor, about, raw, text, leaked):
    names = {"car": CARS, "aircraft": FIGHTERS, "bird": BIRDS}[descriptor]
    assert clean(raw, about=about, descriptor=descriptor, class_names=names) == (text, leaked)


@pytest.mark.parametrize(
    ("raw", "text"),
    [("A car in a showroom.", "A car in a showroom."), (" The\n  sky ", "The sky"), (" \n", "plain")],
)
def test_an_answer_may_stay_as_it_is(raw, text):
    assert verbatim(raw, about="background") == text
