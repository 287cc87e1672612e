"""Render the pages into _docs (Quarto, where it is wanted, does the same from `nbdev_docs`), and check that every
notebook has its page, with its figures and working links."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbdev.serve import proc_nbs

root = Path(__file__).resolve().parent.parent
shutil.rmtree(root / "_docs", ignore_errors=True)
proc_nbs(n_workers=0, force=True)
subprocess.run([Path(sys.executable).with_name("smalldocs"), "render", "_proc"], cwd=root, check=True)
shutil.move(root / "_proc" / "_docs", root / "_docs")
pages = {p.relative_to(root / "_docs") for p in (root / "_docs").rglob("*.html")}
for notebook in sorted((root / "nbs").rglob("*.ipynb")):
    page = notebook.relative_to(root / "nbs").with_suffix(".html")
    if page not in pages:
        sys.exit(
            f"no page for {notebook.relative_to(root)}: looked for {page} among {sorted(map(str, pages))}"
        )
    text = (root / "_docs" / page).read_text()
    figures = sum(
        "image/png" in output.get("data", {})
        for cell in nbformat.read(notebook, as_version=4).cells
        if "#| hide" not in cell.source
        for output in cell.get("outputs", [])
    )
    if text.count("<img") < figures:
        sys.exit(f"{page} shows {text.count('<img')} of {figures} figures")
    for link in re.findall(r'(?:href|src)="([^"#?]+)', text):
        if not re.match(r"[a-z]+:|//", link) and not ((root / "_docs" / page).parent / link).exists():
            sys.exit(f"{page} links to {link}, which is not there")
print(f"{len(pages)} pages, all with their figures and links")
