"""Check the layers: allowed imports, where foreign calls may stand, process-wide state, lengths."""

import ast
import graphlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import live_seg

ROOT = Path(live_seg.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}

FLOORS = (
    {"channel", "choices", "errors", "locks", "images", "processes", "sound", "timing", "masks", "types"},
    {"image_headers", "memory", "recent", "run_lengths", "urls"},
    {"maskrcnn", "exports", "ffmpeg", "files"},
    {"engines"},
    {"segmenter", "propagation", "tracking", "sources", "sinks"},
    {"evaluation", "pipeline", "models", "drawing"},
    {"training", "benchmark", "doctor", "ui", "fleet"},
    {"cli"},
)
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}

STRANGERS = {"sources", "sinks", "drawing", "training"}
"""Rooms beside each other, however high: none imports another, but for `SIDEWAYS`."""

SIDEWAYS = {("training.progress", "drawing.annotate")}
"""Training draws what the network finds in the validation images; nothing imports training."""

TRAINING = {f"training.{name}" for name in ("initial_weights", "trainer", "train")}
KERAS_ROOMS = {"maskrcnn", "engines", "training.precision"}
KERAS_ROOMS |= TRAINING | {"doctor.probes"}
NETWORK_DOORS = {
    "engines",
    "models.card",
    "models.load",
    "models.spec",
    "segmenter",
    "training.batches",
    "training.checkpoint",
    "training.settings",
    "cli.options",  # the default score threshold: a ModelSpec's instead
} | TRAINING
THREADS = {"channel"} | {f"pipeline.{name}" for name in ("stages", "batched", "keyframes")}
CAPTURE_ROOMS = {"sources.captures", "ui.window"}
CAPTURE_CALL = re.compile(r"Video\w+|imshow|waitKey\w*|pollKey|namedWindow|destroy\w*Window\w*|\w+Window\w*")
MATTERPORT_NAME = re.compile(r"mrcnn_|fpn_c|fpn_p\d|rpn_class|rpn_bbox|rpn_conv|(res|bn)\d[a-w]?_|bn_conv1")

TORCHVISION_NAME = re.compile(
    r"_blocks\.|roi_heads|cls_logits|(?<!rpn_)bbox_pred|_predictor|running_(mean|var)"
)


STATE = ("os.environ", "sys.modules", "sys.stdout", "sys.stderr", "sys.path")
"""Objects of the whole process that only the command line may assign to."""

STATE_CALLS = (
    "print",
    *(f"environ.{name}" for name in ("setdefault", "update", "pop", "clear")),
    *(f"os.{name}" for name in ("putenv", "unsetenv", "dup", "dup2", "chdir", "umask")),
    *(f"modules.{name}" for name in ("setdefault", "update", "pop")),
    *("signal.signal", "setLevel", "setLogLevel", "basicConfig", "filterwarnings", "simplefilter"),
    *("redirect_stdout", "redirect_stderr"),
)
"""Calls that change the state of the whole process, or print."""

PROCESS_STATE: dict[str, set[str]] = {
    "engines.openvino.__init__": {"sys.modules"},  # no telemetry
    "engines.openvino.quantize": {"setLevel"},  # of NNCF's logger
    "evaluation.ground_truth": {"redirect_stdout"},  # pycocotools prints
    "ui.window": {"os.environ"},  # the Qt platform, documented in the class
}
"""Modules outside cli/ that change the state of the process, and why."""


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def room(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str, *, while_loading: bool = False) -> Iterator[str]:
    """Full names of what a module imports, with functions' own imports unless only those `while_loading`."""
    nodes = ast.walk(tree(module)) if not while_loading else iter(tree(module).body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str, *, while_loading: bool = False) -> set[str]:
    """Modules of this package that `module` imports."""
    names = imports(module, while_loading=while_loading)
    own = {name.removeprefix("live_seg.") for name in names if name.startswith("live_seg.")}
    return {name for name in own if name in MODULES}


def foreign_imports(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)} - {"live_seg"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module: str) -> None:
    assert room(module) in FLOOR, f"give {module} a floor"
    for imported in own_imports(module):
        assert FLOOR[room(imported)] <= FLOOR[room(module)], f"{module} imports {imported}, above it"
        if room(imported) == "maskrcnn":
            assert {module, room(module)} & (NETWORK_DOORS | {"maskrcnn"}), (
                f"{module} may not import {imported}"
            )
        if room(module) == "maskrcnn":
            assert room(imported) in ("maskrcnn", "errors", "recent"), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in STRANGERS])
def test_sources_sinks_drawing_and_training_do_not_know_each_other(module: str) -> None:
    others = STRANGERS - {room(module)}
    found = {(module, imported) for imported in own_imports(module) if room(imported) in others}
    assert found <= SIDEWAYS


def test_every_known_exception_still_exists() -> None:
    assert {pair for pair in SIDEWAYS if pair[1] not in own_imports(pair[0])} == set()


def test_imports_make_no_circle() -> None:
    graph = {module: own_imports(module, while_loading=True) for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_nothing_imports_the_command_line() -> None:
    assert [
        module
        for module in MODULES
        if any(room(imported) == "cli" for imported in own_imports(module)) and room(module) != "cli"
    ] == []


@pytest.mark.parametrize("module", MODULES)
def test_foreign_packages_stay_in_their_rooms(module: str) -> None:
    foreign = foreign_imports(module)
    if not {module, room(module)} & KERAS_ROOMS:
        assert not foreign & {"keras", "tensorflow", "jax"}
    if module in THREADS:
        assert foreign <= set(sys.stdlib_module_names)
        assert own_imports(module) <= {"choices", "types", "errors"} | THREADS


@pytest.mark.parametrize("module", [module for module in MODULES if module not in CAPTURE_ROOMS])
def test_cameras_and_windows_are_opened_at_the_edges(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cv2":
            assert not CAPTURE_CALL.fullmatch(node.attr), f"{module}:{node.lineno} uses cv2.{node.attr}"


@pytest.mark.parametrize("module", [module for module in MODULES if module != "maskrcnn.matterport"])
def test_matterports_layer_names_stay_in_one_module(module: str) -> None:
    assert not MATTERPORT_NAME.search(MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "maskrcnn.torchvision"])
def test_torchvisions_layer_names_stay_in_one_module(module: str) -> None:
    assert not TORCHVISION_NAME.search(MODULES[module].read_text(encoding="utf-8"))


def test_the_pattern_knows_torchvisions_layer_names() -> None:
    assert TORCHVISION_NAME.search(MODULES["maskrcnn.torchvision"].read_text(encoding="utf-8"))
    for name in (
        "backbone.fpn.inner_blocks.0.0.weight",
        "roi_heads.mask_head.0.0.weight",
        "rpn.head.cls_logits",
    ):
        assert TORCHVISION_NAME.search(name)


def test_the_pattern_knows_matterports_layer_names() -> None:
    assert MATTERPORT_NAME.search(MODULES["maskrcnn.matterport"].read_text(encoding="utf-8"))
    for name in ("res2a_branch2a", "bn4w_branch2c", "fpn_c5p5", "fpn_p2", "rpn_class_raw", "mrcnn_mask"):
        assert MATTERPORT_NAME.search(name)


def process_state(nodes: Iterable[ast.AST]) -> set[str]:
    """Return what `nodes` change for the whole process: printing, the environment, streams, loggers, ..."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {name for name in STATE_CALLS if called == name or called.endswith(f".{name}")}
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
        targets += [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
        for target in targets:
            found |= {name for name in STATE if name in ast.unparse(target)}
    return found


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) != "cli"])
def test_only_the_command_line_changes_the_process(module: str) -> None:
    assert process_state(ast.walk(tree(module))) == PROCESS_STATE.get(module, set())


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("print(1)", {"print"}),
        ("os.environ['A'] = 'b'", {"os.environ"}),
        ("del os.environ['A']", {"os.environ"}),
        ("os.environ |= {}", {"os.environ"}),
        ("os.environ.setdefault('A', 'b')", {"environ.setdefault"}),
        ("cast(dict, sys.modules)['a'] = None", {"sys.modules"}),
        ("sys.stderr = file", {"sys.stderr"}),
        ("os.dup2(1, 2)", {"os.dup2"}),
        ("logging.getLogger('a').setLevel(1)", {"setLevel"}),
        ("sys.stdout.write(os.environ['A']); fingerprint(1); value.pop()", set()),
    ],
)
def test_changes_of_the_process_are_recognized(program: str, found: set[str]) -> None:
    assert process_state(ast.walk(ast.parse(program))) == found


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_short(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{module}.{node.name} has {length} lines"


def without_docstring(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    if not ast.get_docstring(node):
        yield prefix
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef) or child.name.startswith("_"):
            continue
        name = f"{prefix}.{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from without_docstring(child, name)
        elif not ast.get_docstring(child):
            yield name


NO_VERB = re.compile(r"(What|Whether|That|Those)\b")


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_begin_with_a_verb_or_a_noun(module: str) -> None:
    strings = [
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    assert [one.value for one in strings if NO_VERB.match(str(one.value).lstrip())] == []


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module: str) -> None:
    assert list(without_docstring(tree(module), module)) == []


def test_every_export_resolves() -> None:
    assert dir(live_seg) == sorted(live_seg.__all__)
    for name in live_seg.__all__:
        value = getattr(live_seg, name)
        assert not isinstance(value, ModuleType)
        assert inspect.getdoc(value), name
        assert getattr(import_module(value.__module__), name) is value
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = live_seg.nonsense


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("tensorflow", "keras", "jax", "cv2", "h5py", "matplotlib")
    program = f"import live_seg, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
