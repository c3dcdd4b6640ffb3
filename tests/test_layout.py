"""The layout as a contract: what may import what, and what no module may do. One test a rule, which
lists all offenders.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.support.paths import ROOT

# A line may import from the lines above it, and a package from itself; a name stands for a module
# or a whole package.
ORDER = (
    (
        "pipeline.arms",
        "pipeline.errors",
        "pipeline.files",
        "pipeline.config",
        "pipeline.params",
        "pipeline.seeding",
        "pipeline.sharding",
        "pipeline.metrics",
    ),
    ("pipeline.pretrained", "pipeline.distributed", "pipeline.world"),
    ("pipeline.tasks",),
    ("pipeline.data", "pipeline.features"),
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
# Packages that use little of what is above them.
STANDS_ALONE = {
    "pipeline.report": {
        "pipeline.arms",
        "pipeline.errors",
        "pipeline.files",
        "pipeline.metrics",
        "pipeline.analysis",
        "pipeline.data",
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
    "datasets": {"pipeline.data"},
    "huggingface_hub": {"pipeline.interop", "pipeline.pretrained"},
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
# These set a variable that a library reads, where it is not set; no module of the library reads
# one.
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


def imported(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that a file imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str) -> set[str]:
    """The modules of ours that a module imports."""
    return {target for target in imported(ALL[name]) if target in ALL and target != "pipeline"} - {
        name
    }


def unit(name: str) -> str:
    """The entry of ORDER that a module belongs to."""
    return ".".join(name.split(".")[: 2 if name.startswith("pipeline.") else 1])


def libraries(name: str) -> set[str]:
    """The top-level packages that a module imports."""
    return {target.split(".")[0] for target in imported(ALL[name])}


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


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted({unit(name) for name in ALL if name != "pipeline"}) == sorted(LEVEL)


def test_a_module_imports_only_from_the_lines_above_it() -> None:
    offenders = [
        f"{name} imports {target}"
        for name in ALL
        if name != "pipeline"
        for target in sorted(within(name))
        if unit(target) != unit(name)
        and LEVEL[unit(target)] >= LEVEL[unit(name)]
        and LEVEL[unit(name)] > 0
    ]
    assert not offenders


def test_no_two_modules_import_each_other() -> None:
    """Also inside a package: everything can be put in one line."""
    left = {
        name: {target for target in within(name) if not name.startswith(f"{target}.")}
        for name in ALL
    }
    while ready := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ready:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_no_two_packages_import_each_other() -> None:
    edges = {
        (unit(name), unit(target)) for name in ALL if name != "pipeline" for target in within(name)
    }
    assert not [(one, other) for one, other in edges if one < other and (other, one) in edges]


def test_packages_that_stand_alone() -> None:
    offenders = [
        f"{name} imports {target}"
        for name in ALL
        for target in sorted(within(name))
        if unit(name) in STANDS_ALONE
        and unit(target) not in STANDS_ALONE[unit(name)] | {unit(name)}
    ]
    assert not offenders


def test_a_library_is_known_in_few_places() -> None:
    users = {
        library: {
            unit(name) for name in PIPELINE if name != "pipeline" and library in libraries(name)
        }
        for library in LIBRARIES
    }
    assert users == LIBRARIES


def test_what_comes_before_training_knows_no_torch() -> None:
    offenders = [
        name
        for name in PIPELINE
        if name != "pipeline"
        and unit(name) in TORCH_FREE
        and libraries(name) & {"torch", "safetensors", "deepspeed"}
    ]
    assert not offenders


def test_importing_what_reads_and_mixes_loads_no_torch() -> None:
    """From `tokenizer` on, transformers loads torch by itself: `tasks` and `examples` cannot do
    without.
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


def test_the_library_knows_no_stage_and_no_command() -> None:
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
        uses[name] = sum(ast.unparse(node) == "os.environ" for node in ast.walk(tree))
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
    """Nothing is printed or started, and no signal or variable is set but GOMP_SPINCOUNT.

    torch sets TORCHINDUCTOR_CACHE_DIR for itself.
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


def test_files_are_replaced_in_one_place() -> None:
    """`pipeline.files` writes results; a second way to do it would have its own mistakes."""
    words = {"os.replace", "os.rename", "mkstemp", "tempfile.mkstemp", "NamedTemporaryFile"}
    offenders = [
        f"{name} uses {found}" for name, tree in ALL.items() if (found := names(tree) & words)
    ]
    assert [line.split()[0] for line in offenders] == ["pipeline.files"]


def test_nothing_runs_code_out_of_data() -> None:
    torch_may = {"compile"}  # a method of torch, which takes no text
    assert not [
        f"{name} uses {found}"
        for name, tree in ALL.items()
        if (found := names(tree) & FORBIDDEN - (torch_may if name in PIPELINE else set()))
    ]


def test_the_check_for_code_out_of_data_finds_it() -> None:
    for line in (
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "eval('1')",
        "f(trust_remote_code=True)",
    ):
        assert names(ast.parse(line)) & FORBIDDEN, line
    assert not names(ast.parse("model.eval()")) & FORBIDDEN


def test_every_module_says_what_it_is_for() -> None:
    assert not [name for name, tree in ALL.items() if not ast.get_docstring(tree)]


def test_no_module_is_named_as_one_of_the_standard_library() -> None:
    assert not [name for name in ALL if name.rpartition(".")[2] in sys.stdlib_module_names]


def test_tests_mirror_the_packages() -> None:
    folders = {
        path.parent.relative_to(ROOT / "tests")
        for package in ("pipeline", "stages", "deep_prompt")
        for path in (ROOT / "tests" / package).rglob("test_*.py")
    }
    assert folders
    assert not [str(folder) for folder in folders if not (ROOT / folder).is_dir()]


def test_stages_holds_stages_and_packages_only() -> None:
    alone = [
        path.name
        for path in sorted((ROOT / "stages").glob("*.py"))
        if path.name != "__init__.py"
        and f"stages.{path.stem} " not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
        and f"stages.{path.stem}\n" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    ]
    assert not alone


def test_no_file_is_left_in_the_root_of_the_library_by_accident() -> None:
    known = {name.removeprefix("pipeline.") for name in ORDER[0]} | {"__init__"}
    assert {path.stem for path in (ROOT / "pipeline").glob("*.py")} <= known
