"""Imports point down only, and every library has one owner (DESIGN, section 4)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "trm_jax"

# Each room, and each file within a room whose files build on each other, imports only from those above it in this list.
LAYERS = (
    {"terminal"},
    {"errors", "paths", "metric_table", "pages"},
    {"beside"},
    {"data.arc"},
    {"models"},
    {"dynamics.table"},
    {"dynamics.losses", "dynamics.optim", "dynamics.act", "dynamics.contrast"},
    {"dynamics.metrics", "dynamics.search"},
    {"dynamics.collapse"},
    {"dynamics.state"},
    {"dynamics.steps", "dynamics.inference"},
    {"data.split"},
    {"data.sampling"},
    {"data.pipeline"},
    {"run.reasons"},
    {"run.files", "run.bar", "run.fields", "run.interrupt", "run.lock", "run.stalls", "run.mesh", "run.startup",
     "run.ancestry", "run.summaries"},
    {"run.events", "run.saved"},
    {"run.arrays", "run.profile", "run.writer"},
    {"run.checkpoint", "run.settings", "run.pretrained"},
    {"run.overrides"},
    {"run.config_file"},
    {"run.programs", "run.continuation"},
    {"run.record"},
    {"run.progress", "run.machine", "run.start"},
    {"run.loop"},
    {"run.job"},
    {"evaluation"},
    {"train", "evaluate", "compare"},
    {"adapt"},
    {"solve", "__main__"},
)
# The comparison reads run folders and needs nothing else of the package, but for the path that one is given as.
APART = {("compare", "comparison"), ("compare", "paths")}
SCRIPTS = {"train", "evaluate", "adapt", "solve", "compare", "__main__"}
# tensorboardX imports torch wherever there is one, which takes a start two seconds.
OWNERS = {"orbax": {"run.arrays"}, "grain": {"data.pipeline"}, "tensorboard": {"run.events", "run.summaries"},
          "tensorboardX": set(), "torch": set()}
KNOWN = set().union(*LAYERS) | {"comparison"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, those within functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(module: str) -> str | None:
    """The entry of LAYERS that a module below the package belongs to; None for the package and its empty rooms."""
    parts = module.split(".")
    return next((name for name in (".".join(parts[:2]), parts[0]) if name in KNOWN), None)


def module(path: Path) -> str:
    """Dotted name of a file below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def may_import(here: str) -> set[str]:
    """The parts of the package that files of the part `here` may import besides each other."""
    above: set[str] = set()
    for layer in LAYERS:
        if here in layer:
            return above | {there for part, there in APART if part == here}
        above |= layer
    assert here == "comparison", f"{here} stands in no layer"
    return {"metric_table", "pages"}  # it reads run folders and nothing else of the package


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = part(module(path))
    inside = {part(name.removeprefix("trm_jax.")) for name in imports(path) if name.startswith("trm_jax.")} - {None}
    if here is None:
        assert path.name == "__init__.py" and inside <= {"terminal"}, f"{path} stands in no layer"
        return
    assert inside - {here} <= may_import(here)
    assert here not in SCRIPTS or here not in inside


def test_a_forbidden_edge_is_found():
    assert "run.settings" not in may_import("run.mesh") and "run.mesh" not in may_import("dynamics.steps")
    assert "comparison" not in may_import("data.arc") | may_import("train")
    assert all("train" not in may_import(name) for name in KNOWN - {"adapt", "solve", "__main__"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_are_absolute(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}"


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_one_owner(library):
    users = {part(module(path)) for path in FILES if any(name.split(".")[0] == library for name in imports(path))}
    assert users - {"comparison"} <= OWNERS[library]


def test_the_comparison_is_a_pipeline():
    order = ("thresholds", "wording", "events", "runs", "statistics", "groups", "criteria", "halting",
             "plan", "verdict", "curves", "report")
    for path in (PACKAGE / "comparison").rglob("*.py"):
        here = path.stem
        used = {name.split(".")[2] for name in imports(path) if name.startswith("trm_jax.comparison.")}
        if here == "__init__":
            assert not used
        else:
            assert used - {here} <= set(order[: order.index(here)]), path


def test_models_know_no_mesh_and_arc_knows_no_jax():
    for path in (PACKAGE / "models").rglob("*.py"):
        assert not any("mesh" in name.lower() or name.startswith("ml_collections") for name in imports(path)), path
    for path in (PACKAGE / "data" / "arc").rglob("*.py"):
        assert not any(name.split(".")[0] in {"jax", "flax"} for name in imports(path)), path


def test_configs_import_nothing_of_the_package():
    for path in (ROOT / "configs").glob("*.py"):
        assert not any(name.startswith("trm_jax") for name in imports(path)), path


def test_only_scripts_read_flags_and_print():
    for path in FILES:
        if part(module(path)) in SCRIPTS:
            continue
        assert not any(name.startswith("absl.flags") or name == "absl.app" for name in imports(path)), path
        calls = {node.func.id for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert "print" not in calls, path


def test_every_room_is_a_package_and_so_in_the_wheel():
    assert all((path.parent / "__init__.py").exists() for path in FILES)


def test_the_mesh_axis_has_one_owner():
    for path in FILES:
        if part(module(path)) != "run.mesh":
            assert not any(name.startswith("jax.sharding") for name in imports(path)), path
