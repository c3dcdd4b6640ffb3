"""Rules for imports between modules, and for forbidden functions. Each test lists all offenders."""

import ast
import functools
import os
import subprocess
import sys

from tests.support.paths import ROOT

# Names of modules or packages, in import order. A module may import from earlier lines and from its
# package; the entries of the first line may import each other.
ORDER = (
    (
        "pipeline.arms",
        "pipeline.errors",
        "pipeline.files",
        "pipeline.config",
        "pipeline.params",
        "pipeline.seeding",
        "pipeline.sharding",
        "pipeline.source_files",
        "pipeline.metrics",
        "pipeline.words",
    ),
    ("pipeline.pretrained", "pipeline.distributed", "pipeline.world"),
    ("pipeline.tasks",),
    ("pipeline.data", "pipeline.features", "pipeline.display"),
    ("pipeline.mixing",),
    ("pipeline.model",),
    ("pipeline.artifacts",),
    ("pipeline.evaluation",),
    ("pipeline.training",),
    ("pipeline.analysis", "pipeline.inference", "pipeline.interop"),
    ("pipeline.report",),
    ("stages",),
    ("deep_prompt",),
)
LEVEL = {unit: level for level, units in enumerate(ORDER) for unit in units}
# Packages that may import only a few of the packages on earlier lines.
ALLOWED_IMPORTS = {
    "pipeline.report": {
        "pipeline.arms",
        "pipeline.errors",
        "pipeline.files",
        "pipeline.metrics",
        "pipeline.analysis",
        "pipeline.data",
        "pipeline.display",
        "pipeline.tasks",
    },
    "pipeline.world": {"pipeline.errors", "pipeline.files"},
    "pipeline.metrics": set[str](),
}
TORCH_FREE = {unit for level in ORDER[:5] for unit in level} - {
    "pipeline.distributed",
    "pipeline.mixing",
} | {"pipeline.report"}
LIBRARIES = {
    "transformers": {"pipeline.pretrained", "pipeline.model"},
    "deepspeed": {"pipeline.distributed"},
    "tokenizers": set[str](),
    "peft": {"pipeline.model"},
    "torchao": {"pipeline.model"},
    "datasets": {"pipeline.data"},
    "huggingface_hub": {"pipeline.interop", "pipeline.pretrained"},
    "spacy": {"pipeline.data"},
    "pyarrow": {"pipeline.data", "pipeline.features", "pipeline.tasks", "pipeline.training"},
}
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "trust_remote_code",
}
# Modules that set a default for an environment variable of a library. No module reads a variable.
SETS_ENVIRONMENT = {
    "pipeline.pretrained.tokenizer": ["TOKENIZERS_PARALLELISM"],
    "pipeline.distributed.process_group": ["LOCAL_RANK"],
    "pipeline.distributed.deepspeed_setup": ["DS_ACCELERATOR"],
}


def modules(package: str) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every file of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    assert len(found) > 10
    return found


PIPELINE, STAGES, DEEP_PROMPT = modules("pipeline"), modules("stages"), modules("deep_prompt")
ALL = {**PIPELINE, **STAGES, **DEEP_PROMPT}


@functools.cache
def imported(tree: ast.Module) -> tuple[str, ...]:
    """Every dotted name that a file imports, also inside functions."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append(str(node.module))
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def project_imports(name: str) -> set[str]:
    """The modules of this project that a module imports."""
    return {target for target in imported(ALL[name]) if target in ALL and target != "pipeline"} - {
        name
    }


def unit(name: str) -> str:
    """The entry of ORDER that a module belongs to."""
    return ".".join(name.split(".")[: 2 if name.startswith("pipeline.") else 1])


def libraries(name: str) -> set[str]:
    """The top-level packages that a module imports."""
    return {target.split(".")[0] for target in imported(ALL[name])}


@functools.cache
def names(tree: ast.Module) -> set[str]:
    """Every dotted name and keyword in a file: `os.environ`, `print`, `trust_remote_code`."""
    found = set(imported(tree)) | {top.split(".")[0] for top in imported(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
    return found


def test_every_module_is_in_the_import_order() -> None:
    assert sorted({unit(name) for name in ALL if name != "pipeline"}) == sorted(LEVEL)


def test_a_module_imports_only_from_earlier_lines() -> None:
    offenders = [
        f"{name} imports {target}"
        for name in ALL
        if name != "pipeline"
        for target in sorted(project_imports(name))
        if unit(target) != unit(name)
        and LEVEL[unit(target)] >= LEVEL[unit(name)]
        and LEVEL[unit(name)] > 0
    ]
    assert not offenders


def test_no_two_modules_import_each_other() -> None:
    """This holds also inside a package: the modules have a topological order."""
    remaining = {
        name: {target for target in project_imports(name) if not name.startswith(f"{target}.")}
        for name in ALL
    }
    while ready := [name for name, targets in remaining.items() if not targets & remaining.keys()]:
        for name in ready:
            del remaining[name]
    assert not remaining, f"modules in or behind an import cycle: {sorted(remaining)}"


def test_no_two_packages_import_each_other() -> None:
    edges = {
        (unit(name), unit(target))
        for name in ALL
        if name != "pipeline"
        for target in project_imports(name)
    }
    assert not [(one, other) for one, other in edges if one < other and (other, one) in edges]


def test_independent_packages_import_only_what_is_listed() -> None:
    offenders = [
        f"{name} imports {target}"
        for name in ALL
        for target in sorted(project_imports(name))
        if unit(name) in ALLOWED_IMPORTS
        and unit(target) not in ALLOWED_IMPORTS[unit(name)] | {unit(name)}
    ]
    assert not offenders


def test_a_library_is_imported_only_in_its_packages() -> None:
    users = {
        library: {
            unit(name) for name in PIPELINE if name != "pipeline" and library in libraries(name)
        }
        for library in LIBRARIES
    }
    assert users == LIBRARIES


def test_packages_before_training_do_not_import_torch() -> None:
    offenders = [
        name
        for name in PIPELINE
        if name != "pipeline"
        and unit(name) in TORCH_FREE
        and libraries(name) & {"torch", "safetensors", "deepspeed"}
    ]
    assert not offenders


def test_importing_data_and_mixing_loads_no_torch() -> None:
    """`tasks` and `examples` are not in the list.

    They import the tokenizer, and transformers then loads torch by itself.
    """
    wanted = [
        "arms",
        "files",
        "config",
        "params",
        "pretrained.location",
        "mixing.rates",
        "mixing.schedule",
        "data.recipe",
        "metrics.answers",
        "features.table",
        "data.leakage",
        "world",
    ]
    imports = ", ".join(f"pipeline.{name}" for name in wanted)
    check = f"import sys, {imports}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


def test_the_library_imports_no_stage_and_no_command() -> None:
    assert not [
        name
        for name in PIPELINE
        if libraries(name) & {"stages", "deep_prompt", "tests", "benchmarks"}
    ]
    assert not [name for name in STAGES if libraries(name) & {"deep_prompt", "tests", "benchmarks"}]


def test_the_library_prints_nothing_and_reads_no_arguments() -> None:
    words = {"print", "input", "sys.argv", "sys.stdout", "sys.stderr", "os.getenv", "argparse"}
    assert not [
        f"{name} uses {found}" for name, tree in PIPELINE.items() if (found := names(tree) & words)
    ]
    uses, sets = dict[str, int](), dict[str, list[str]]()
    for name, tree in PIPELINE.items():
        uses[name] = sum(
            isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ"
            for node in ast.walk(tree)
        )
        sets[name] = [
            node.args[0].value
            for node in ast.walk(tree)  # type: ignore[attr-defined]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.setdefault"
        ]
    assert {name: found for name, found in sets.items() if found} == SETS_ENVIRONMENT
    assert not [name for name in PIPELINE if uses[name] != len(sets[name])]


EFFECTS = """
import importlib, os, signal, sys, threading, ctypes
from pathlib import Path

def state():
    death = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(death))  # PR_GET_PDEATHSIG
    tasks = Path("/proc/self/task")
    return {
        "signal handlers": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "signal at the parent's death": death.value,
        "threads": threading.enumerate(),
        "children": "".join(path.read_text() for path in tasks.glob("*/children")),
    }

before, environment = state(), dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
    changed = {key for key, _ in os.environ.items() ^ environment.items()}
    assert changed <= {"GOMP_SPINCOUNT", "TORCHINDUCTOR_CACHE_DIR"}, (name, changed)
    assert state() == before, (name, [key for key, now in state().items() if now != before[key]])
"""


def test_importing_a_module_has_no_effect() -> None:
    """An import prints and starts nothing, and sets no signal handler.

    GOMP_SPINCOUNT is the only environment variable set; torch itself sets TORCHINDUCTOR_CACHE_DIR.
    """
    names = [name for name in ALL if not name.endswith("__main__")]
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EFFECTS, *names],
        cwd=ROOT,
        env=environment | {"DVC_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_pipeline_files_replaces_files() -> None:
    """Only `pipeline.files` replaces files, so there is a single implementation to test."""
    words = {"os.replace", "os.rename", "mkstemp", "tempfile.mkstemp", "NamedTemporaryFile"}
    offenders = [
        f"{name} uses {found}" for name, tree in ALL.items() if (found := names(tree) & words)
    ]
    assert [line.split()[0] for line in offenders] == ["pipeline.files"]


def test_no_module_runs_code_from_data() -> None:
    allowed_in_pipeline = {"compile"}  # torch.compile takes no source text
    assert not [
        f"{name} uses {found}"
        for name, tree in ALL.items()
        if (found := names(tree) & FORBIDDEN - (allowed_in_pipeline if name in PIPELINE else set()))
    ]


def test_the_check_for_code_from_data_detects_it() -> None:
    for line in (
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "eval('1')",
        "f(trust_remote_code=True)",
    ):
        assert names(ast.parse(line)) & FORBIDDEN, line
    assert not names(ast.parse("model.eval()")) & FORBIDDEN


def test_every_module_has_a_docstring() -> None:
    assert not [name for name, tree in ALL.items() if not ast.get_docstring(tree)]


def test_no_module_has_a_name_of_the_standard_library() -> None:
    assert not [name for name in ALL if name.rpartition(".")[2] in sys.stdlib_module_names]


def test_tests_mirror_the_packages() -> None:
    folders = {
        path.parent.relative_to(ROOT / "tests")
        for package in ("pipeline", "stages", "deep_prompt")
        for path in (ROOT / "tests" / package).rglob("test_*.py")
    }
    assert folders
    assert not [str(folder) for folder in folders if not (ROOT / folder).is_dir()]


def test_the_stages_folder_has_only_stages_and_packages() -> None:
    helpers = [
        path.name
        for path in sorted((ROOT / "stages").glob("*.py"))
        if path.name != "__init__.py"
        and f"stages.{path.stem} " not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
        and f"stages.{path.stem}\n" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    ]
    assert not helpers


def test_the_root_of_the_library_has_only_known_files() -> None:
    known = {name.removeprefix("pipeline.") for name in ORDER[0]} | {"__init__"}
    assert {path.stem for path in (ROOT / "pipeline").glob("*.py")} <= known
