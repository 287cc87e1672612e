"""Format the package notebooks: exported cells as the package (110 columns), example cells to fit a page (90 columns).

`python .ci/format.py` writes, `--check` only says what it would write; names of notebooks may follow. `ruff format` does the rest."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 90  # what fits beside a sidebar at 1300 px


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def formatted(paths: list[Path], columns: int | None) -> dict[Path, list[str]]:
    "The sources of the cells of every notebook, formatted to so many columns; as configured for None."
    with tempfile.TemporaryDirectory() as folder:
        copies = {path: Path(folder) / path.name for path in paths}
        for path, copy in copies.items():
            copy.write_bytes(path.read_bytes())
        how = ["--config", str(ROOT / "pyproject.toml"), "--config", "format.exclude=[]"]
        how += ["--line-length", str(columns)] if columns else []
        subprocess.run(["ruff", "format", "--quiet", *how, *map(str, copies.values())], check=True)
        return {path: sources(copy) for path, copy in copies.items()}


def is_exported(source: str) -> bool:
    return any(line.replace(" ", "").startswith("#|export") for line in source.splitlines())


def main(names: list[str], check: bool) -> int:
    paths = [Path(name).resolve() for name in names] or sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    package, page = formatted(paths, None), formatted(paths, COLUMNS)
    changed = []
    for path in paths:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell, wide, narrow in zip(notebook["cells"], package[path], page[path], strict=True):
            if cell["cell_type"] == "code":
                cell["source"] = (wide if is_exported(wide) else narrow).splitlines(keepends=True)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        if text != path.read_text(encoding="utf-8"):
            changed.append(path.name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if changed:
        print(f"{'would format' if check else 'formatted'} {', '.join(changed)}")
    return int(check and bool(changed))


if __name__ == "__main__":
    asked = sys.argv[1:]
    sys.exit(main([name for name in asked if name != "--check"], "--check" in asked))
