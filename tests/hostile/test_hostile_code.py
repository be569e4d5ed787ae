"""What could run code, start a program or reach the network stands in few places: here they are, each with its reason.
A new one is a decision, and fails this test until it is made."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of these modules every use counts, of the others these names.
MODULES = {
    *("pickle", "subprocess", "tarfile", "zipfile", "shelve", "marshal", "runpy", "socket", "urllib", "http"),
    *("requests", "aiohttp", "huggingface_hub", "joblib", "dill", "cloudpickle", "pty", "webdataset", "fsspec"),
}
NAMES = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "importlib.import_module", "yaml.load"),
    *("torch.load", "torch.hub", "torch.package", "torch.jit.load", "numpy.load", "numpy.loadtxt", "numpy.fromfile"),
    *(
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.Loader",
        "yaml.UnsafeLoader",
        "yaml.FullLoader",
        "pandas.read_pickle",
    ),
    *(
        "ctypes.CDLL",
        "hydra.utils",
        "shutil.unpack_archive",
        "shutil.make_archive",
        "multiprocessing.connection",
        "timm.create_model",
    ),
}
ALLOWED = {
    ("stec/catalogue.py", "importlib.import_module"): "classes that installed packages declare, by their names",
    ("stec/cli/child.py", "subprocess.DEVNULL"): "for the next",
    ("stec/cli/child.py", "subprocess.Popen"): "stec-train itself, as a list of words, for stec-report run",
    ("stec/cli/report.py", "importlib.import_module"): "the module of a sub-command, from a table in that file",
    ("stec/commit.py", "subprocess.run"): "git, as a list of words, to say of which commit the sources are",
    ("stec/commit.py", "subprocess.SubprocessError"): "the same",
    ("stec/shards/fetching.py", "fsspec.filesystem"): "addresses that the user gives as data=",
    ("stec/shards/fetching.py", "http.HTTPStatus"): "numbers of errors",
    (
        "stec/shards/fetching.py",
        "importlib.import_module",
    ): "errors of the packages that fsspec uses, from a table there",
    ("stec/shards/tar.py", "tarfile.open"): "headers alone; nothing is extracted",
    ("stec/shards/tar.py", "tarfile.ReadError"): "the same",
    ("stec/shards/table.py", "numpy.load"): "with allow_pickle=False",
    ("stec/shards/writer.py", "webdataset.writer.TarWriter"): "writes",
    ("stec/stored.py", "yaml.load"): "with a SafeLoader that takes no references",
    ("stec/testing/decoders.py", "pickle.dumps"): "of what the process itself holds",
    ("stec/testing/decoders.py", "pickle.loads"): "the same",
    ("stec/testing/spaces.py", "pickle.dumps"): "of what the process itself holds",
    ("stec/testing/spaces.py", "pickle.loads"): "the same",
    ("stec/training/checkpoint.py", "pickle.UnpicklingError"): "the error",
    ("stec/training/checkpoint.py", "torch.load"): "with weights_only=True",
    ("stec/training/checkpoint.py", "zipfile.BadZipFile"): "the error",
    ("stec/training/checkpoint.py", "zipfile.ZipFile"): "compares checksums",
    ("modalities/stec_audio/synthesis.py", "importlib.import_module"): "espeakng_loader, if it is installed",
    ("modalities/stec_audio/synthesis.py", "numpy.load"): "with allow_pickle=False",
    ("modalities/stec_audio/synthesis.py", "subprocess.run"): "itself, as a list of words, for eSpeak's sake",
    ("modalities/stec_audio/synthesis.py", "ctypes.CDLL"): "eSpeak's library, in a process of its own",
    ("modalities/stec_vision/archives.py", "tarfile.open"): "one member, read as a stream",
    ("modalities/stec_vision/archives.py", "tarfile.TarError"): "the error",
    ("modalities/stec_vision/packers.py", "numpy.load"): "with allow_pickle=False",
    ("modalities/stec_vision/timm_encoder.py", "huggingface_hub.try_to_load_from_cache"): "looks into the cache",
    (
        "modalities/stec_vision/timm_encoder.py",
        "timm.create_model",
    ): "names that timm knows; weights if the user says so",
    ("modalities/stec_vision/unpickling.py", "pickle.Unpickler"): "finds nothing but numpy's own arrays",
}


def used(source: str) -> Iterator[str]:
    """Dotted names that a module uses, with what they were imported as put right."""
    tree = ast.parse(source)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                (a.asname or a.name.split(".")[0]): (a.name if a.asname else a.name.split(".")[0]) for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            name = _dotted(node)
            head, dot, rest = name.partition(".")
            if head:
                yield known.get(head, head) + dot + rest


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def watched(name: str) -> bool:
    """Is it one of those that count? (Not the bare module: what is done with it is what counts.)"""
    if name.startswith(("urllib.parse.", "socket.gethostname")):
        return False
    return (name.partition(".")[0] in MODULES and "." in name) or any(
        name == one or name.startswith(f"{one}.") for one in NAMES
    )


def product() -> Iterator[tuple[str, str]]:
    for folder in ("stec", "modalities"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_nothing_else_runs_code_or_reaches_out():
    found = {(path, name) for path, source in product() for name in used(source) if watched(name)}
    assert found == ALLOWED.keys()


def test_no_shell_and_no_pickle_by_an_option():
    for path, source in product():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword):
                given = (node.arg, getattr(node.value, "value", None))
                assert given not in {("shell", True), ("allow_pickle", True), ("weights_only", False)}, path


def test_arrays_and_checkpoints_are_read_without_pickle():
    wanted = {"numpy.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
    for path, source in product():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and (option := wanted.get(_dotted(node.func).replace("np.", "numpy."))):
                assert option in {(k.arg, getattr(k.value, "value", None)) for k in node.keywords}, path


def test_the_scan_sees_what_it_is_for():
    source = "import pickle as p, os\nfrom torch import load as l\np.loads(b'')\nl('x')\nos.system('x')\n"
    assert {name for name in used(source) if watched(name)} == {"pickle.loads", "torch.load", "os.system"}
