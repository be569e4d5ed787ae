"""Names lead to classes; what is not there, broken, foreign or there twice is one sentence that names whose it is."""

import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

from stec import catalogue
from stec.catalogue import CORE, find, names, nearest
from stec.errors import UsageError
from stec.identity.simclr import SimCLR
from stec.modality import API_VERSION, KINDS
from stec_vision import MODALITY

STRINGS = [
    (kind, name, target)
    for parts in (CORE, MODALITY.parts)
    for kind, entries in parts.items()
    for name, target in entries.items()
]


@pytest.mark.parametrize(("kind", "name", "target"), STRINGS)
def test_every_string_of_every_catalogue_leads_to_its_class(kind, name, target):
    module, _, attribute = target.partition(":")
    found = find(kind, name)
    assert isinstance(found, type)
    assert found is getattr(import_module(module), attribute)
    assert name in names(kind)


def test_the_nearest_name_ends_a_sentence():
    assert nearest("resnte", ["timm", "resnet"]) == "did you mean 'resnet'? There is: resnet, timm."
    assert nearest("zzz", ["timm", "resnet"]) == "There is: resnet, timm."
    assert nearest("x", []) == "There is: nothing."


def test_unknown_names_and_kinds_are_told_in_a_sentence():
    assert find("identity", "simclr") is SimCLR
    with pytest.raises(UsageError, match=r"identity='simlcr' is unknown: did you mean 'simclr'\? There is: .*simclr"):
        find("identity", "simlcr")
    with pytest.raises(UsageError, match=r"encoder='resnte' is unknown: did you mean 'resnet'\?"):
        find("encoder", "resnte")
    with pytest.raises(UsageError, match=r"no kind 'encodre' of part: did you mean 'encoder'\?"):
        names("encodre")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution with a modality, as pip would: a module and its metadata on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(package: str, source: str, value: str = "") -> Path:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(source)
        info = tmp_path / f"{package}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[stec.modalities]\n{package} = {value or package + ':MODALITY'}\n")
        invalidate_caches()
        return tmp_path / package

    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def declaration(parts: dict[str, dict[str, str]], version: int = API_VERSION) -> str:
    return f"from stec.modality import Modality\nMODALITY = Modality('toy', {version}, {parts!r})\n"


def test_a_stranger_brings_names_and_is_imported_only_when_one_is_chosen(install):
    folder = install("stec_stranger", declaration({"encoder": {"tiny": "stec_stranger.nets:Tiny"}}))
    (folder / "nets.py").write_text("class Tiny: pass\n")
    assert "tiny" in names("encoder")
    assert "stec_stranger.nets" not in sys.modules
    assert find("encoder", "tiny").__module__ == "stec_stranger.nets"
    with pytest.raises(UsageError, match=r"encoder='tony' is unknown: did you mean 'tiny'\?"):
        find("encoder", "tony")


@pytest.mark.parametrize(
    ("source", "value", "sentence"),
    [
        ("raise RuntimeError('no licence')", "", "failed on import: RuntimeError: no licence."),
        ("import a_module_that_is_not_there", "", "failed on import: ModuleNotFoundError"),
        ("MODALITY = {'encoder': {}}", "", "is a dict, not a stec.modality.Modality."),
        ("", "stec_bad:MODALITY", "failed on import: AttributeError"),
        (declaration({}, version=99), "", f"is written for api_version 99, not {API_VERSION}."),
        (declaration({"encodre": {}}), "", "declares 'encodre': did you mean 'encoder'?"),
    ],
)
def test_a_broken_stranger_takes_nobody_down_and_is_named(install, source, value, sentence):
    install("stec_bad", source, value)
    assert "resnet" in names("encoder")
    assert find("encoder", "resnet").__name__ == "ResNet"
    with pytest.raises(UsageError) as caught:
        find("encoder", "its_own")
    assert f"Not readable: stec_bad:MODALITY of stec_bad 0.1 {sentence}" in str(caught.value)
    assert "\n" not in str(caught.value)
    found, broken = catalogue.installed()
    assert MODALITY in [one.modality for one in found]
    assert [one for one in broken if sentence in one] == broken != []


@pytest.mark.parametrize(
    ("target", "source", "sentence"),
    [
        ("stec_half.nets:Tiny", "class Tony: pass", "AttributeError"),
        ("stec_half.nest:Tiny", "class Tiny: pass", "ModuleNotFoundError"),
        ("stec_half.nets:Tiny", "1 / 0", "ZeroDivisionError"),
        ("stec_half.nets:Tiny", "class Tiny", "SyntaxError"),
        ("stec_half.nets", "class Tiny: pass", "AttributeError"),
        ("stec_half.nets:Tiny", "Tiny = 3", "is not a class"),
    ],
)
def test_a_name_that_leads_nowhere_is_the_fault_of_who_declared_it(install, target, source, sentence):
    (install("stec_half", declaration({"encoder": {"tiny": target}})) / "nets.py").write_text(source)
    with pytest.raises(UsageError) as caught:
        find("encoder", "tiny")
    assert "encoder='tiny' of stec_half 0.1" in str(caught.value)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


def test_one_name_from_two_is_refused_by_both_names(install):
    install("stec_one", declaration({"encoder": {"tiny": "stec_one:Tiny"}}))
    install("stec_two", declaration({"encoder": {"tiny": "stec_two:Tiny"}}))
    with pytest.raises(
        UsageError, match=r"encoder='tiny' is declared by both stec_one 0\.1 and stec_two 0\.1: uninstall"
    ):
        find("encoder", "tiny")
    assert find("identity", "simclr") is SimCLR


def test_a_distribution_found_twice_on_the_path_counts_once(install, tmp_path, monkeypatch):
    install("stec_once", declaration({"encoder": {"once": "stec_once:Once"}}) + "class Once: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "."))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find("encoder", "once").__name__ == "Once"


def test_kinds_of_the_core_are_not_a_modalitys_to_declare(install):
    install("stec_proud", declaration({"identity": {"mine": "stec_proud:Mine"}}))
    with pytest.raises(UsageError, match=r"stec_proud.*declares 'identity'"):
        find("identity", "mine")
    assert not set(CORE) & set(KINDS)
    assert catalogue.GROUP == "stec.modalities"
