"""stec.testing: a good modality passes, and each creature of the zoo fails the check that names its fault."""

import re
from unittest import SkipTest

import pytest
import zoo

from stec import catalogue, testing
from stec.errors import UsageError
from stec.testing import Fault, contract
from stec.testing.bench import Bench
from stec.testing.contract import all_cases


def findings(**other):
    """{(kind, check): finding} of the zoo's modality with other parts."""
    bench = Bench(catalogue.Installed("zoo 1.0", zoo.modality(**other)))
    return {(case.part.split()[0], case.check): case.finding() for case in all_cases(bench)}


def failed(found):
    return {f"{kind}: {check}" for (kind, check), finding in found.items() if finding.outcome == "failed"}


def test_a_good_modality_passes():
    found = findings()
    assert failed(found) == set()
    skipped = {f"{kind}: {check}" for (kind, check), finding in found.items() if finding.outcome == "skipped"}
    assert skipped - {f"{kind}: on a gpu" for kind in ("action_space", "decoder", "encoder")} == {
        "action_space: group law",
        "decoder: performs what it says",
        "encoder: sequences",
        "encoder: places of frames",
    }
    assert all(finding.words for finding in found.values() if finding.outcome == "skipped")
    assert len(found) > 35


BROKEN = [
    ("action_space", "Unitless", "declaration", "has no name or no unit"),
    ("action_space", "Double", "shapes", r"`sample` gives torch.float64; torch.float32 was expected"),
    ("action_space", "NarrowMask", "shapes", r"\(the mask\) has the shape \[8, 1\]; \[8, 2\] was expected"),
    ("action_space", "Astray", "drawn from keys", r"other actions for the same keys: draw with stec.rng"),
    ("action_space", "AstrayAct", "act draws nothing", "another view for the same action"),
    ("action_space", "AstrayRelative", "relative draws nothing", "another copy for the same two actions"),
    ("action_space", "SeesItsNeighbours", "alone as in a batch", "`act` gives row 0 of a batch another view"),
    ("action_space", "Blended", "nothing to itself", r"`relative\(a, a\)` tells level = "),
    ("action_space", "WrongOrder", "group law", "E13 is not E12 E23"),
    ("action_space", "OutOfRange", "values are what the components say", r"lies outside -0.5 to 0.5"),
    ("action_space", "OffItsLevels", "values are what the components say", r"is none of its levels \(0.0, 1.0"),
    ("action_space", "Deaf", "every bin is hit", "all components are constant"),
    ("action_space", "SeedBound", "every bin is hit", r"of the 6 bins of level, \d are hit by none of 4096"),
    ("action_space", "HalfStill", "still does nothing", r"has the shape \[1, 1\]; \[8, 1\] was expected"),
    ("action_space", "Unsendable", "can be pickled", "so not be sent to a loading process"),
    ("decoder", "Dotted", "declaration", "has a dot or upper case"),
    ("decoder", "Swapped", "extents", r"`open` says \(6, 5\) of sample 0, but decoded it measures \(5, 6\)"),
    ("decoder", "Flickers", "whole samples", "another tensor for the same bytes"),
    ("decoder", "Ignores", "performs what it says", "performs=1, but other actions change no view"),
    ("decoder", "Unfinished", "finished", "`finish` gives torch.uint8; floats were expected"),
    ("decoder", "Crashes", "damaged bytes", "`open` answers 0 bytes with IndexError"),
    ("decoder", "Swallows", "damaged bytes", r"`whole` takes 0 bytes for a sample; a DataError was expected"),
    ("encoder", "Misnamed", "outputs", "dims and Features disagree on context"),
    ("encoder", "TooWide", "outputs", r"'pooled' has the shape \[8, 16\]; \[8, 17\] was expected"),
    ("encoder", "Hopless", "sequences", "it gives a sequence, but hop=0"),
    ("encoder", "Hastes", "places of frames", "4 a frame, but hop=5"),
    ("encoder", "Astray", "places of frames", "from where hop and centre=99 say"),
    ("encoder", "Restless", "evaluation mode", "differs from call to call"),
    ("encoder", "LooksAround", "alone as in a batch", "row 0 of a batch is another one if the row is alone"),
    ("encoder", "Unreached", "gradients", r"no gradient reaches 2 parameters, spare.weight, spare.bias first"),
    ("encoder", "Forgets", "state", "something learnt is not in it"),
    ("encoder", "Blind", "overfit", r"the loss only went from .* in 50 steps on one batch"),
    ("probe", "Uneven", "rows and labels", r"features \[1, 16\] and labels \[2\] for sample 0"),
    ("probe", "BeyondItsClasses", "rows and labels", r"gives the label \[1\], but there are 1 classes"),
    ("probe", "Trusting", "damaged members", "damaged member 'cls' with ValueError"),
    ("picture", "Wordless", "draws", "`words` gives a float"),
    ("packer", "Sourceless", "a packer", "makes it raise KeyError"),
    ("example", "TooFew", "an example", "it has 3 samples; at least 4"),
    ("example", "OneKey", "samples as packed", "cannot be packed: sample key 'same'"),
    ("example", "Unsteady", "samples as packed", "are others at the second call"),
    ("example", "StrayLabel", "samples as packed", "is 2, but there are 2 classes"),
]
# What one fault brings down besides, in parts that are made of the faulty one.
WITH_IT = {
    "Restless": {"encoder: alone as in a batch", "encoder: state"},
    "Unfinished": {"probe: rows and labels"},
    "Crashes": {"probe: damaged members"},
    "StrayLabel": {"all: views"},
}


@pytest.mark.parametrize(("kind", "name", "check", "words"), BROKEN, ids=[f"{row[1]}" for row in BROKEN])
def test_a_fault_is_found_by_the_check_that_names_it(kind, name, check, words):
    found = findings(**{kind: name})
    part = kind if check != "overfit" else "all"
    finding = found[part, check]
    assert finding.outcome == "failed"
    assert re.search(words, finding.words)
    besides = failed(found) - {f"{part}: {check}"}
    assert besides == WITH_IT.get(name, set())


@pytest.fixture
def installed(monkeypatch):
    """Only what is given is installed."""

    def install(*found, broken=()):
        monkeypatch.setattr(contract, "installed", lambda: ([catalogue.Installed("zoo 1.0", m) for m in found], broken))

    return install


def test_a_name_that_is_not_installed_is_told_with_the_nearest(installed):
    installed(zoo.modality(), broken=["farm:MODALITY of farm 2 failed on import: KeyError: 1."])
    with pytest.raises(UsageError, match=r"no modality 'zo' installed: did you mean 'zoo'\?.*Not readable: farm:MODAL"):
        testing.check("zo")


def test_two_of_one_name_are_refused(installed):
    installed(zoo.modality(), zoo.modality())
    with pytest.raises(UsageError, match=r"'zoo' is declared by both zoo 1\.0 and zoo 1\.0: uninstall one\."):
        testing.check("zoo")


def test_cases_raise_what_findings_tell(installed):
    installed(zoo.modality(encoder="Unreached"))
    case = next(case for case in testing.cases("zoo") if str(case) == "encoder one: gradients")
    assert case.promise == "The gradient of its outputs reaches every parameter, and is finite."
    with pytest.raises(Fault, match=r"spare\.weight"):
        case()
    with pytest.raises(SkipTest):
        next(case for case in testing.cases("zoo") if case.check == "sequences")()
    assert [f for f in testing.check("zoo") if f.outcome == "failed"] == [case.finding()]


def test_one_fault_is_not_told_twice(installed):
    """What is made of the faulty part is skipped, and says why."""
    installed(zoo.modality(decoder="NotThere", encoder="TooWide"))
    found = {(f.part, f.check): f for f in testing.check("zoo")}
    assert "cannot be imported from zoo.decoders:NotThere" in found["decoder one", "is made"].words
    assert found["decoder one", "extents"].words == "decoder one cannot be made"
    assert found["probe one", "rows and labels"].outcome == "skipped"
    assert found["all parts", "overfit"].words == "decoder one: is made fails by itself: mend that first"


def test_without_an_example_a_modality_is_only_made(installed):
    good = zoo.modality()
    installed(good._replace(parts={kind: part for kind, part in good.parts.items() if kind != "example"}))
    found = testing.check("zoo")
    assert {f.outcome for f in found} == {"passed", "skipped"}
    assert {f.check for f in found if f.outcome == "passed"} == {"is made", "a packer"}
    reasons = {f.words for f in found if f.outcome == "skipped"}
    assert "the modality has no example: there are no samples to try it on" in reasons


def test_a_needed_option_that_the_example_does_not_give_is_a_reason_to_skip(installed):
    installed(zoo.modality(encoder="Demanding"))
    found = {(f.part, f.check): f for f in testing.check("zoo")}
    assert found["encoder one", "is made"].outcome == "skipped"
    assert "says nothing of its channels" in found["encoder one", "is made"].words


def test_a_wrong_option_of_the_example_is_a_fault(installed):
    installed(zoo.modality(example="Misspelt"))
    (finding,) = [f for f in testing.check("zoo") if f.outcome == "failed"]
    assert (finding.part, finding.check) == ("encoder one", "is made")
    assert finding.words == "encoder.one.chanels is unknown: did you mean 'channels'? There is: channels."


def test_what_a_check_trips_over_is_told_with_its_place(installed):
    installed(zoo.modality(picture="Crooked"))
    (finding,) = [f for f in testing.check("zoo") if f.outcome == "failed"]
    assert re.fullmatch(r"it raised ZeroDivisionError: division by zero \(.*others\.py, line \d+\)", finding.words)


def test_an_example_that_cannot_be_made_is_one_fault(installed):
    installed(zoo.modality(example="Sourceless"))
    found = testing.check("zoo")
    (finding,) = [f for f in found if f.outcome == "failed"]
    assert (finding.part, finding.check) == ("example one", "is made")
    assert "missing 1 required positional argument: 'source'" in finding.words
    assert {f.words for f in found if f.part == "encoder one"} == {"example one cannot be made"}
