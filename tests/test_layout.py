"""The shape of the packages: no import cycle, and no module that nobody reads to its end.

The layers themselves are import-linter's (pyproject.toml), which sees no cycle inside a package and none for types.
"""

from statistics import median

import grimp
from fast import ROOT


def test_no_modules_import_each_other_not_even_for_types() -> None:
    graph = grimp.build_graph("spintok", "spintok_kernels", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # What imports nothing that is left is in no cycle, nor is what nothing that is left imports.
    while free := {module for module, imported in imports.items() if not imported & imports.keys()}:
        imports = {module: imported for module, imported in imports.items() if module not in free}
    imported = set().union(*imports.values()) if imports else set()
    assert not {module for module in imports if module in imported}


def test_modules_are_short() -> None:
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for folder in ("spintok", "kernels/spintok_kernels")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".cpp", ".h")
    }
    assert not {name: count for name, count in lines.items() if count > 400}
    assert median(lines.values()) <= 130
