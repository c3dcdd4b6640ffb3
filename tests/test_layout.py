"""The layout as a contract: what may import what, and what no module may do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module imports only those before it; a name stands for the module, or for a package with all that is in it.
ORDER = ("errors", "files", "shards", "row", "config", "cluster", "params", "source", "mixture", "readers", "metrics",
         "bootstrap", "confidence", "families", "tokenizer", "features", "edit", "task", "manifest", "checks",
         "tagging", "tasks", "recipe", "leakage", "parts", "duplicates", "corpus", "examples", "featurize", "card",
         "statistics", "perturb", "paraphrase", "subset", "batches", "prompt", "attention", "backbone", "model",
         "stored", "optim", "artifact", "exchange", "checkpoint", "collective", "evaluate", "weigh", "agreement",
         "probing", "bundle", "predictor", "accelerator", "launch", "engine", "trainer", "report", "world")
TORCH_FREE = (*ORDER[: ORDER.index("subset") + 1], "report", "world")
ALONE = {"report": {"errors", "metrics", "bootstrap", "confidence", "statistics"}, "world": {"errors"}}
ONLY = {"transformers": {"tokenizer", "attention", "backbone"}, "deepspeed": {"accelerator"}, "tokenizers": set(),
        "peft": {"exchange"}, "datasets": {"readers"}, "huggingface_hub": {"card", "source", "readers"},
        "pyarrow": {"readers", "features", "task", "tasks", "parts", "corpus", "examples"}}
FORBIDDEN = {"eval", "exec", "compile", "__import__", "torch.load", "pickle", "cloudpickle", "dill", "marshal", "shelve",
             "trust_remote_code"}


def modules(package: str) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every file of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    assert len(found) > 10
    return found


PIPELINE, STAGES = modules("pipeline"), modules("stages")


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
    """The modules of pipeline/ that a module of it imports."""
    return {target for target in imported(PIPELINE[name]) if target in PIPELINE and target != "pipeline"} - {name}


def unit(name: str) -> str:
    """The entry of ORDER that a module belongs to."""
    return name.split(".")[1]


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted({unit(name) for name in PIPELINE if name != "pipeline"}) == sorted(ORDER)


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_a_module_imports_only_those_before_it(name: str) -> None:
    later = {target for target in within(name) if ORDER.index(unit(target)) > ORDER.index(unit(name))}
    assert not later


def test_no_two_modules_import_each_other() -> None:
    """Also inside a package: everything can be put in one line."""
    left = {name: {target for target in within(name) if not name.startswith(f"{target}.")} for name in PIPELINE}
    while ready := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ready:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize("package", sorted(ALONE))
def test_packages_that_stand_alone(package: str) -> None:
    own = [name for name in PIPELINE if name.split(".")[1:2] == [package]]
    assert own
    assert {unit(target) for name in own for target in within(name)} - {package} <= ALONE[package]


@pytest.mark.parametrize("library", sorted(ONLY))
def test_a_library_is_known_in_few_places(library: str) -> None:
    users = {unit(name) for name, tree in PIPELINE.items() if any(target.split(".")[0] == library for target in imported(tree))}
    assert users <= ONLY[library]
    assert users or not ONLY[library], "the contract names a module that does not use it"


@pytest.mark.parametrize("name", sorted(name for name in PIPELINE if name != "pipeline" and unit(name) in TORCH_FREE))
def test_what_comes_before_training_knows_no_torch(name: str) -> None:
    assert not [target for target in imported(PIPELINE[name]) if target.split(".")[0] in {"torch", "safetensors", "deepspeed"}]


def test_importing_what_reads_and_mixes_loads_no_torch() -> None:
    """From `tokenizer` on, transformers loads torch by itself: `tasks` and `examples` cannot do without."""
    names = ["files", "config", "params", "source", "mixture", "recipe", "metrics.answers", "features", "leakage", "world"]
    imports = ", ".join(f"pipeline.{name}" for name in names)
    check = f"import sys, {imports}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_the_library_knows_no_stage(name: str) -> None:
    assert not {target.split(".")[0] for target in imported(PIPELINE[name])} & {"stages", "tests", "benchmarks"}


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


# These set a variable that a library reads, where it is not set; none reads one.
SETS_ENVIRONMENT = {"pipeline.tokenizer": ["TOKENIZERS_PARALLELISM"], "pipeline.launch": ["LOCAL_RANK"],
                    "pipeline.accelerator": ["DS_ACCELERATOR"]}


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_the_library_prints_nothing_and_reads_no_arguments(name: str) -> None:
    found = names(PIPELINE[name])
    assert not found & {"print", "input", "sys.argv", "sys.stdout", "sys.stderr", "os.getenv", "argparse"}
    uses = [node for node in ast.walk(PIPELINE[name]) if ast.unparse(node) == "os.environ"]
    sets = [node.args[0].value for node in ast.walk(PIPELINE[name])
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.setdefault"]
    assert sets == SETS_ENVIRONMENT.get(name, [])
    assert len(uses) == len(sets)


@pytest.mark.parametrize("name", sorted({**PIPELINE, **STAGES}))
def test_nothing_runs_code_out_of_data(name: str) -> None:
    assert not names({**PIPELINE, **STAGES}[name]) & FORBIDDEN - ({"compile"} if name.startswith("pipeline") else set())


def test_the_check_for_code_out_of_data_finds_it() -> None:
    for line in ("import pickle", "from pickle import loads", "torch.load(path)", "eval('1')", "f(trust_remote_code=True)"):
        assert names(ast.parse(line)) & FORBIDDEN, line
    assert not names(ast.parse("model.eval()")) & FORBIDDEN


@pytest.mark.parametrize("name", sorted({**PIPELINE, **STAGES}))
def test_a_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring({**PIPELINE, **STAGES}[name])
