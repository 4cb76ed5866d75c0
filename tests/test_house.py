"""Check the layers: allowed imports, where foreign calls may stand, process-wide state, lengths."""

import ast
import functools
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
    {"maskrcnn", "events", "exports", "ffmpeg", "files"},
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


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(text(module))


def room(module: str) -> str:
    return module.partition(".")[0]


def text(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


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


@functools.cache
def all_imports() -> list[tuple[str, str]]:
    """Pairs of a module and one of this package that it imports."""
    return [(module, imported) for module in MODULES for imported in sorted(own_imports(module))]


def test_every_module_has_a_floor() -> None:
    assert {room(module) for module in MODULES} <= FLOOR.keys()


def test_imports_go_downward() -> None:
    assert [(one, other) for one, other in all_imports() if FLOOR[room(other)] > FLOOR[room(one)]] == []


def test_few_modules_import_the_network_and_it_imports_little() -> None:
    allowed = NETWORK_DOORS | {"maskrcnn"}
    users = {one for one, other in all_imports() if room(other) == "maskrcnn"}
    assert [one for one in sorted(users) if not {one, room(one)} & allowed] == []
    used = {room(other) for one, other in all_imports() if room(one) == "maskrcnn"}
    assert used <= {"maskrcnn", "errors", "recent"}


def test_sources_sinks_drawing_and_training_do_not_know_each_other() -> None:
    found = {pair for pair in all_imports() if STRANGERS.issuperset(map(room, pair))}
    assert {pair for pair in found if room(pair[0]) != room(pair[1])} <= SIDEWAYS


def test_every_known_exception_still_exists() -> None:
    assert {pair for pair in SIDEWAYS if pair[1] not in own_imports(pair[0])} == set()


def test_imports_make_no_circle() -> None:
    graph = {module: own_imports(module, while_loading=True) for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_nothing_imports_the_command_line() -> None:
    assert [pair for pair in all_imports() if room(pair[1]) == "cli" and room(pair[0]) != "cli"] == []


def test_foreign_packages_stay_in_their_rooms() -> None:
    foreign = {module: foreign_imports(module) for module in MODULES}
    users = [module for module in MODULES if foreign[module] & {"keras", "tensorflow", "jax"}]
    assert [module for module in users if not {module, room(module)} & KERAS_ROOMS] == []
    for module in THREADS:
        assert foreign[module] <= set(sys.stdlib_module_names)
        assert own_imports(module) <= {"choices", "types", "errors"} | THREADS


def test_cameras_and_windows_are_opened_at_the_edges() -> None:
    found = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cv2"
        if CAPTURE_CALL.fullmatch(node.attr)
    }
    assert found == CAPTURE_ROOMS


@pytest.mark.parametrize(
    ("pattern", "only"),
    [(MATTERPORT_NAME, "maskrcnn.matterport"), (TORCHVISION_NAME, "maskrcnn.torchvision")],
)
def test_layer_names_of_others_stay_in_one_module(pattern: re.Pattern[str], only: str) -> None:
    assert [module for module in MODULES if pattern.search(text(module))] == [only]


def test_the_pattern_knows_torchvisions_layer_names() -> None:
    for name in (
        "backbone.fpn.inner_blocks.0.0.weight",
        "roi_heads.mask_head.0.0.weight",
        "rpn.head.cls_logits",
    ):
        assert TORCHVISION_NAME.search(name)


def test_the_pattern_knows_matterports_layer_names() -> None:
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


def test_only_the_command_line_changes_the_process() -> None:
    changes = {module: process_state(ast.walk(tree(module))) for module in MODULES if room(module) != "cli"}
    assert {module: found for module, found in changes.items() if found} == PROCESS_STATE


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


def test_modules_stay_short() -> None:
    lengths = {module: len(text(module).splitlines()) for module in MODULES}
    assert {module: length for module, length in lengths.items() if length > 300} == {}


def test_functions_stay_short() -> None:
    lengths = {}
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                lengths[module, node.name, node.lineno] = length
    assert {place: length for place, length in lengths.items() if length > 40} == {}


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


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    strings = [
        (module, str(node.value.value))
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    assert [(module, one) for module, one in strings if NO_VERB.match(one.lstrip())] == []


def test_everything_public_has_a_docstring() -> None:
    assert [name for module in MODULES for name in without_docstring(tree(module), module)] == []


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
