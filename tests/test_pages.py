"""What a reader of the site meets: figures with words, clean outputs, code that fits, answers first, and every page in its place.

Rendered pages (links, signatures, widths in a browser) are looked at by `.ci/docs.py`; here the notebooks are."""

import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import yaml

import waddington_nb as wd
from waddington_nb.cli import main, parser
from waddington_nb.core import DataError

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
NOTEBOOKS = {path.relative_to(NBS).as_posix(): path for path in sorted(NBS.rglob("[!_.]*.ipynb"))}
LESSONS = [
    name for name in NOTEBOOKS if name.startswith("tutorials/") or not name[0].isdigit() and "/" not in name
]
STUDIES = [name for name in NOTEBOOKS if name.startswith("studies/")]
COLUMNS = 90  # what fits beside a sidebar at 1300 px


def cells_of(name: str) -> list:
    return nbformat.read(NOTEBOOKS[name], as_version=4).cells


def said(cell, option: str) -> bool:
    return re.search(rf"^#\|\s*{option}\b", cell.source, re.M) is not None


def shown(name: str) -> list:
    "Code cells of a notebook that a reader sees."
    return [cell for cell in cells_of(name) if cell.cell_type == "code" and not said(cell, "hide")]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_has_alt_text(name):
    without = [
        cell.source.splitlines()[0]
        for cell in shown(name)
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
        and not re.search(r'^#\| fig-alt: "[^"]{20,}"$', cell.source, re.M)
    ]
    assert without == [], 'say what the figure shows: #| fig-alt: "..."'


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_hold_no_progress_and_no_warnings(name):
    for cell in shown(name):
        for output in cell.outputs:
            text = output.get("text", "")
            assert output.get("name") != "stderr", f"stderr below {cell.source[:60]!r}"
            assert not re.search(r"\d+%\|| ?it/s\]|\r", text), f"a progress bar below {cell.source[:60]!r}"
            assert output.output_type != "error", f"an error below {cell.source[:60]!r}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_example_code_fits_beside_the_sidebar(name):
    "`python .ci/format.py` breaks lines of code; strings and comments are broken by hand."
    long = [
        line
        for cell in shown(name)
        if not said(cell, "export(i|s)?") and not said(cell, "echo: false")
        for line in cell.source.splitlines()
        if len(line) > COLUMNS and not line.startswith("#|")
    ]
    assert long == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_section_is_empty(name):
    "After a heading comes something, before the next of its level or the end."
    text = "\n".join(
        re.sub(r"^```.*?^```", "code", cell.source, flags=re.M | re.S)
        if cell.cell_type == "markdown"
        else "code"
        for cell in cells_of(name)
        if cell.cell_type == "markdown" or not said(cell, "hide")
    )
    parts = re.split(r"^(#+ .+)$", text, flags=re.M)[1:]
    level = lambda heading: len(heading.split()[0])
    for place in range(0, len(parts), 2):
        following = parts[place + 2] if place + 2 < len(parts) else "# end"
        assert parts[place + 1].strip() or level(following) > level(parts[place]), (
            f"{parts[place]!r} is empty"
        )


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_opens_with_its_answer(name):
    _, opening, *_ = cells_of(name)
    assert opening.cell_type == "markdown" and opening.source.startswith("**Answer.**")
    assert len(opening.source.split("\n\n")[0].split()) <= 110, "two to four lines"
    assert re.search(r"\d", opening.source), "an answer has a number"


@pytest.mark.parametrize("name", [name for name in LESSONS if re.match(r"tutorials/\d", name)])
def test_a_tutorial_ends_with_what_to_try_next(name):
    assert "## What to try next" in cells_of(name)[-1].source


def test_every_page_is_in_the_sidebar_once():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        if isinstance(entry, dict):
            return pages(entry.get("contents", entry.get("file", [])))
        return [page for one in entry for page in pages(one)]

    site = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]
    listed = [page for page in pages(site["sidebar"]["contents"]) if page.endswith(".ipynb")]
    assert sorted(listed) == sorted(NOTEBOOKS)


def test_the_reference_has_every_public_name_once():
    named = re.findall(r"show_doc\(wd\.(\w+)", "\n".join(cell.source for cell in cells_of("reference.ipynb")))
    assert sorted(named) == sorted(set(wd.__all__) - {"__version__"})


def test_pictures_keep_their_shape():
    "A rule that bounds the width of images leaves their height free; Quarto writes both on every image."
    for rule in re.findall(r"([^{}]*\bimg\b[^{}]*)\{([^}]*)\}", (NBS / "styles.css").read_text()):
        assert "width" not in rule[1] or re.search(r"height:\s*auto", rule[1]), rule


@pytest.mark.parametrize("name", LESSONS)
def test_links_between_notebooks_lead_somewhere(name):
    for cell in cells_of(name):
        for link in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source if cell.cell_type == "markdown" else ""):
            assert (NOTEBOOKS[name].parent / link).is_file(), link


def commands_of(text: str) -> list[str]:
    "The commands of the package in the shell blocks of a text."
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if re.match(r"\s*(\S*/)?waddington ", line)]


SOURCES = {name: "\n\n".join(c.source for c in cells_of(name)) for name in [*LESSONS, "46_cli.ipynb"]}
COMMANDS = sorted(
    {c for text in (*SOURCES.values(), (ROOT / "README.md").read_text()) for c in commands_of(text)}
)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_commands_fit_beside_the_sidebar(name):
    "A browser breaks a long line after a hyphen, so that `--out` falls apart; a backslash breaks it where it should."
    text = "\n\n".join(c.source for c in cells_of(name) if c.cell_type == "markdown")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 72] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_shown_command_is_understood(command):
    try:
        parser().parse_args(shlex.split(command, comments=True)[1:])
    except DataError as error:
        raise AssertionError(f"{command}\n{error}") from error


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    "As a reader would, one after the other, on a file with the names that the README uses."
    cells = wd.haematopoiesis(n_cells=600, knock_outs=["Gfi1"], n_targets=40, seed=0)
    cells.obs["perturbation"] = cells.obs["perturbation"].replace({"Gfi1 KO": "IFNB"})
    names = {"donor 1": "B", "donor 2": "NK", "donor 3": "CD4 T", "donor 4": "CD8 T"}
    cells.obs["cell_type"] = cells.obs.pop("donor").replace(names)
    untreated = (cells.obs["perturbation"] == "control").to_numpy()
    monkeypatch.chdir(tmp_path)
    cells[untreated | (cells.obs["cell_type"] != "CD8 T").to_numpy()].copy().write_h5ad("cells.h5ad")
    cells[untreated][:60].copy().write_h5ad("new_controls.h5ad")
    commands = [c for c in commands_of((ROOT / "README.md").read_text()) if ".h5ad" in c]
    assert [c.split()[1] for c in commands] == ["check", "run", "predict", "predict"]
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
    assert {path.parent.name for path in tmp_path.rglob("report.html")} == {"nk", "predicted", "new"}


def docs_module(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signatures_say_something():
    "Named tuples, protocols and defaults that are functions, as the pages show them."
    shown = docs_module("showdoc")
    from waddington_nb.tasks import Condition
    from waddington_nb.worlds import World

    assert shown.call(Condition, "Condition").startswith("class Condition(group: str, perturbation: str")
    assert shown.call(World, "World") == "class World"
    for name in sorted(set(wd.__all__) - {"__version__"}):
        text = shown.calls(getattr(wd, name), name)
        assert "*args, **kwargs" not in text and " at 0x" not in text, text


def documented() -> dict[str, list]:
    "The functions and classes whose calls the reference shows, by name; of a verb, those of every kind of task."
    source = "\n".join(cell.source for cell in cells_of("reference.ipynb"))
    names = re.findall(r"show_doc\(([\w.]+)", source)
    found = {}
    for name in names:
        module, own = name.split(".")
        holder = wd if module == "wd" else import_module(f"waddington_nb.{module}")
        symbol = getattr(holder, own)
        verbs = symbol.registry if hasattr(symbol, "dispatch") else {}
        found[name] = [one for kind, one in verbs.items() if kind is not object] or [symbol]
    return found


DOCUMENTED = documented()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_parameter_has_a_comment(name):
    "What a caller gives, and the fields of what comes back: meaning, shape or unit, behind each in the source."
    shown = docs_module("showdoc")
    for symbol in DOCUMENTED[name]:
        said = shown.comments(symbol)
        without = [one.name for one in shown.parameters(symbol) or [] if one.name not in said]
        assert without == [], f"{symbol.__module__}.{symbol.__name__}"


def test_the_browser_sees_what_does_not_fit(tmp_path):
    "The measuring itself, on a page that is too wide, and one whose picture is squeezed."
    browser = docs_module("browser")
    found = browser.find_browser()
    if found is None:
        pytest.skip("no Chromium or Chrome is installed: pages are not measured")
    import matplotlib.image

    matplotlib.image.imsave(tmp_path / "wide.png", [[[0.0, 0.5, 1.0]] * 800] * 200)
    picture = '<img src="wide.png" style="{}">'
    (tmp_path / "good.html").write_text(f"<body>{picture.format('max-width:100%;height:auto')}</body>")
    (tmp_path / "bent.html").write_text(f"<body>{picture.format('max-width:100%')}</body>")
    (tmp_path / "wide.html").write_text('<body><div style="width:900px">wide</div></body>')
    faults = browser.measure(found, tmp_path, ["good.html", "bent.html", "wide.html"])
    assert [fault.split(":")[0] for fault in faults] == ["bent.html at 400 px", "wide.html at 400 px"]
    assert "out of shape" in faults[0] and "too wide" in faults[1]
