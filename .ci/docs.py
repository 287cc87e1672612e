"""Render the pages into _docs and check what a reader gets: a page for every notebook under the name that readers know,
its figures with words, links that lead somewhere, signatures that say something, and widths that fit a screen.

`python .ci/docs.py` renders with smalldocs; `--quarto`, where Quarto is installed, publishes. Neither touches README.md."""

import argparse
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbdev.config import get_config
from nbdev.serve import proc_nbs

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / ".ci"))
from browser import find_browser, measure  # noqa: E402

made, docs = root / "_proc", root / "_docs"
config = get_config()
config.d["renderer"] = "showdoc.Renderer"


def prepare() -> dict[Path, Path]:
    "Notebooks with their documentation, under the names of their pages; the page of every notebook."
    proc_nbs(n_workers=0, force=True)
    pages, renamed = {}, {}
    for notebook in sorted((root / "nbs").rglob("[!_.]*.ipynb")):
        place = notebook.relative_to(root / "nbs")
        head = nbformat.read(made / place, as_version=4).cells[0].source
        name = re.search(r"^output-file: (\S+)\.html$", head, re.M)[1]
        pages[notebook] = place.with_name(f"{name}.html")
        if name != place.stem:
            renamed[place.name] = f"{name}.ipynb"
            (made / place).rename(made / place.with_name(f"{name}.ipynb"))
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, renamed)) + r")\b")
    rename = lambda text: pattern.sub(lambda found: renamed[found[1]], text)
    # words such as `predict` and `run` are functions of the command line's page, but in prose they are the commands
    site = re.escape(f"{config.doc_host}{config.doc_baseurl}/cli.html#")
    for path in made.rglob("*.ipynb"):
        text = re.sub(rf"\[(`\w+`)\]\({site}\w+\)", r"\1", path.read_text())
        path.write_text(breakable(rename(text)))
    (made / "_quarto.yml").write_text(rename((root / "_quarto.yml").read_text()))
    return pages


def breakable(notebook: str) -> str:
    "The text of a notebook; in heads of tables, long names may break after an underscore or a plus."
    return re.sub(r"<th>[\w+]*_[\w+]*</th>", lambda head: re.sub(r"([_+])", r"\1<wbr>", head[0]), notebook)


def render(quarto: bool) -> None:
    "The pages, and among them the report that `waddington demo` writes."
    command = ["quarto", "render"] if quarto else [Path(sys.executable).with_name("smalldocs"), "render"]
    said = subprocess.run([*command, str(made)], cwd=root, text=True, capture_output=True)
    other = [line for line in said.stderr.splitlines() if "output-file is not read" not in line]
    print(*other, sep="\n")
    if said.returncode:
        sys.exit(said.stdout)
    shutil.rmtree(docs, ignore_errors=True)
    shutil.move(made / "_docs", docs)
    demo = [Path(sys.executable).with_name("waddington"), "demo", "--out", made / "demo"]
    subprocess.run(demo, cwd=root, check=True, capture_output=True)
    (docs / "demo").mkdir()
    shutil.copy(made / "demo" / "report.html", docs / "demo")


def shown(notebook: Path) -> int:
    "How many pictures a notebook shows."
    return sum(
        "image/png" in output.get("data", {})
        for cell in nbformat.read(notebook, as_version=4).cells
        if "#| hide" not in cell.source
        for output in cell.get("outputs", [])
    )


def faults_of(page: Path, text: str, figures: int, anchors: dict[Path, set[str]]) -> list[str]:
    "What is wrong with a page, in words."
    found = []
    if text.count("<img") < figures:
        found.append(f"shows {text.count('<img')} of {figures} figures")
    nameless = sum(not re.search(r'\balt="[^"]{8,}"', tag) for tag in re.findall(r"<img\b[^>]*>", text))
    if nameless:
        found.append(f"{nameless} figures without alt text")
    for code in re.findall(r"<pre\b.*?</pre>", text, re.S):
        plain = html.unescape(re.sub(r"<[^>]+>", "", code))
        if plain.lstrip().startswith(("def ", "class ")) and re.search(
            r"\(\s*\*args, \*\*kwargs|\bat 0x", plain
        ):
            found.append(f"a signature that says nothing: {plain.split('(')[0]}")
    home = f"{config.doc_host}{config.doc_baseurl}/"
    for link in re.findall(r'(?:href|src)="([^"]+)"', text):
        target = html.unescape(link)
        target = target.removeprefix(home) if target.startswith(home) else target
        if re.match(r"[a-z]+:|//", target):
            continue
        name, _, anchor = target.partition("#")
        base = Path() if link.startswith(home) else page.parent
        place = (docs / (base / name.split("?")[0] if name else page)).resolve()
        place = place / "index.html" if place.is_dir() else place
        if not place.exists():
            found.append(f"links to {link}, which is not there")
        elif anchor and place in anchors and anchor not in anchors[place]:
            found.append(f"links to {link}, where that heading is not")
    return sorted(set(found))


def check(pages: dict[Path, Path]) -> list[str]:
    "What is wrong with the pages."
    faults = [
        f"{notebook.name}: no page {page}" for notebook, page in pages.items() if not (docs / page).exists()
    ]
    texts = {page: (docs / page).read_text() for page in pages.values() if (docs / page).exists()}
    ids = lambda text: {html.unescape(name) for name in re.findall(r'\bid="([^"]+)"', text)}
    anchors = {(docs / page).resolve(): ids(text) for page, text in texts.items()}
    figures = {page: shown(notebook) for notebook, page in pages.items()}
    for page, text in texts.items():
        faults += [f"{page}: {fault}" for fault in faults_of(page, text, figures[page], anchors)]
    search = (docs / "search.json").read_text()
    return faults + [f"{page}: cannot be searched" for page in texts if str(page) not in search]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quarto", action="store_true", help="render with Quarto, to publish")
    pages = prepare()
    render(parser.parse_args().quarto)
    faults = check(pages)
    browser = find_browser()
    if browser:
        faults += measure(browser, docs, [str(page) for page in [*pages.values(), "demo/report.html"]])
    print("\n".join(faults))
    widths = "measured at 400 and 1300 px" if browser else "not measured: no Chromium or Chrome is installed"
    print(f"{len(pages)} pages, {widths}; {len(faults)} faults")
    sys.exit(bool(faults))
