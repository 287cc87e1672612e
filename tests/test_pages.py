"""What a reader of the site meets: figures with words, clean outputs, code that fits, answers first, and every page in its place.

Rendered pages (links, signatures, widths in a browser) are looked at by `.ci/docs.py`; here the notebooks are."""

import importlib.util
import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import mudata
import nbformat
import pytest
import yaml
from conftest import write_sets

import waddington_nb as wd
from waddington_nb import cli
from waddington_nb.cli import main, parser
from waddington_nb.core import DataError
from waddington_nb.multiome import example_multiome
from waddington_nb.networks import bnet_text
from waddington_nb.representations import Representation
from waddington_nb.worlds import World

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
    shown = [cell for cell in cells_of(name)[2:4] if cell.cell_type == "code"]
    assert any(cell.outputs for cell in shown), "a table or figure follows the answer"


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


def perform(commands: list[str], capsys) -> None:
    "Each command as a reader would give it, one after the other, in this folder."
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"


def untreated(cells, *, group: str | None = None):
    "The cells without the treated ones; those of one group only, if it is named."
    groups = cells.obs.get("donor", cells.obs.get("cell_type"))
    treated = (cells.obs["perturbation"] != "control").to_numpy()
    return cells[~(treated & (group is None or (groups == group).to_numpy()))].copy()


def readers_cells(targets: int = 40):
    "A simulated study with the names that README and the command line's page use."
    cells = wd.haematopoiesis(n_cells=600, knock_outs=["Gfi1"], n_targets=targets, seed=0)
    cells.obs["perturbation"] = cells.obs["perturbation"].replace({"Gfi1 KO": "IFNB"})
    names = {"donor 1": "B", "donor 2": "NK", "donor 3": "CD4 T", "donor 4": "CD8 T"}
    cells.obs["cell_type"] = cells.obs.pop("donor").replace(names)
    return cells


README = [c for c in commands_of((ROOT / "README.md").read_text()) if ".h5ad" in c]


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    "As they are shown, in full; the start page has no others."
    cells = readers_cells()
    monkeypatch.chdir(tmp_path)
    untreated(cells, group="CD8 T").write_h5ad("cells.h5ad")
    untreated(cells)[:60].copy().write_h5ad("new_controls.h5ad")
    assert [command.split()[1] for command in README] == ["check", "run", "predict", "predict"]
    assert {c for c in commands_of(SOURCES["start.ipynb"]) if ".h5ad" in c} <= set(README)
    perform(README, capsys)
    assert {path.parent.name for path in tmp_path.rglob("report.html")} == {"nk", "predicted", "new"}


@pytest.fixture
def brief(monkeypatch):
    "Commands as they are shown, but for a default budget of training of a fifteenth."
    whole = cli.make_stages
    monkeypatch.setattr(cli, "make_stages", lambda names, steps: whole(names, min(steps, 2000)))


def test_the_other_commands_of_the_command_line_page_run(tmp_path, monkeypatch, capsys, brief):
    "With a hundred genes predicted where a file has a few more, so that `--universe all` has something to add."
    (command,) = [c for c in commands_of(SOURCES["46_cli.ipynb"]) if c not in README]
    monkeypatch.chdir(tmp_path)
    cells = readers_cells(targets=110)
    cells.write_h5ad("cells.h5ad")
    write_sets("pathways.gmt", {"early": list(cells.var_names[:30]), "late": list(cells.var_names[30:80])})
    options = parser().parse_args(shlex.split(command)[1:])
    assert cli.wide_task(options, wd.Task(cells, group_key="cell_type", hold_out_group="NK")) is None
    whole = cli.asked_of
    fewer = lambda options: {} if options.genes == "all" else {"n_genes": 100}
    monkeypatch.setattr(cli, "asked_of", lambda options: whole(options) | fewer(options))
    perform([command], capsys)
    assert "linear map" in (tmp_path / "runs" / "pathways" / "report.html").read_text()


def blood(targets: int = 30):
    "The simulated study of several tutorials, smaller."
    return wd.haematopoiesis(n_cells=240, knock_outs=["Gfi1", "Pu.1"], n_targets=targets, seed=0)


def own_screen(tutorial: str, function: str, **smaller):
    "Cells from the function by which a tutorial makes them."
    names = {}
    source = next(cell.source for cell in cells_of(tutorial) if f"def {function}(" in cell.source)
    exec(source.split("\n\n\ncells = ")[0], names)
    return names[function](**smaller)


def stranger():
    "What the second tutorial makes of it: other names of columns and controls."
    cells = blood()
    cells.obs = cells.obs.rename(columns={"perturbation": "condition", "donor": "patient"})
    cells.obs["condition"] = cells.obs["condition"].replace({"control": "mock"})
    return cells


MADE = {
    "01_first_run": blood,
    "02_is_my_file_fit": stranger,
    "03_untreated_cell_type": lambda: untreated(blood(), group="donor 1"),
    "05_unseen_knock_out": lambda: own_screen(
        "tutorials/05_unseen_knock_out.ipynb", "screen", genes=30, each=25
    ),
    "06_unseen_pair": lambda: own_screen("tutorials/06_unseen_pair.ipynb", "screen", genes=30, each=25),
    "07_unseen_dose": lambda: own_screen("tutorials/07_unseen_dose.ipynb", "series", genes=30, each=25),
    "09_unmeasured_time": example_multiome,
    "10_no_time_measured": lambda: example_multiome()["rna"],
    "11_from_here_to_there": blood,
    "12_what_the_moves_mean": lambda: blood(targets=110),
}
WITH_COMMANDS = [
    name for name in LESSONS if name.startswith("tutorials/") and ".h5" in "".join(commands_of(SOURCES[name]))
]


def write_files(made) -> None:
    "The files that commands of tutorials name: cells, untreated cells, gene sets, networks."
    if isinstance(made, dict):
        mudata.MuData({name: cells.copy() for name, cells in made.items()}).write_h5mu("cells.h5mu")
        early = {name: cells[(cells.obs["hours"] == 0).to_numpy()].copy() for name, cells in made.items()}
        return mudata.MuData(early).write_h5mu("new.h5mu")
    made.write_h5ad("cells.h5ad")
    if "perturbation" in made.obs:
        untreated(made).write_h5ad("new_controls.h5ad")
    write_sets("pathways.gmt", {pathway: [f"{pathway}{i}" for i in range(4)] for pathway in "AB"})
    Path("network.csv").write_text("source,target\nA0,A1\nA1,A2\nB1,B2\n")
    genes = list(made.var_names)
    write_sets("my_sets.gmt", {"early": genes[:20], "late": genes[20:80]})
    Path("my_network.csv").write_text("source,target,weight\n" + "".join(f"X,{g},1\n" for g in genes[:20]))
    Path("blood.bnet").write_text(bnet_text(wd.blood_network()))


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands_of_a_tutorial_run(name, tmp_path, monkeypatch, capsys, brief):
    """On a small file of the tutorial's kind.

    `waddington demo` runs where the pages are rendered, `waddington landscapes --quick` in `test_escape.py`."""
    monkeypatch.chdir(tmp_path)
    write_files(MADE[Path(name).stem]())
    commands = [command for command in commands_of(SOURCES[name]) if not command.endswith("runs/demo")]
    perform(commands, capsys)
    asked = {re.search(r"--out (\S+)", command) for command in commands} - {None}
    assert all((tmp_path / found[1] / "report.html").is_file() for found in asked)


def test_no_other_command_is_left_out():
    others = {c for n in LESSONS if n not in WITH_COMMANDS for c in commands_of(SOURCES[n])}
    assert others - set(README) == {
        "waddington demo --out runs/demo",
        "waddington landscapes --quick --out runs/landscapes",
    }


def docs_module(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signatures_say_something():
    "Named tuples, protocols and defaults that are functions, as the pages show them."
    shown = docs_module("showdoc")
    from waddington_nb.tasks import Condition

    assert shown.call(Condition, "Condition").startswith("class Condition(group: str, perturbation: str")
    assert shown.call(World, "World") == "class World"
    for name in sorted(set(wd.__all__) - {"__version__"}):
        text = shown.calls(getattr(wd, name), name)
        assert "*args, **kwargs" not in text and " at 0x" not in text, text


@pytest.mark.parametrize("name", ["fit", "evaluate", "steer"])
def test_a_verb_is_shown_as_it_is_called(name):
    "One call for every kind of task, defaults that can be read, and no links inside code."
    text = docs_module("showdoc").Renderer(getattr(wd, name), name=name)._repr_markdown_()
    code = text.split("```")[1]
    assert code.count(f"def {name}(") == 2
    assert "*arguments" not in code and "max_kl=" not in code and "`" not in code


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


def methods_of(symbol: type) -> dict[str, object]:
    "The public methods of a class, its own and those of its bases in this package."
    own = [base for base in reversed(symbol.__mro__) if base.__module__.startswith("waddington_nb.")]
    found = {name: value for base in own for name, value in vars(base).items() if not name.startswith("_")}
    plain = {name: getattr(value, "__func__", value) for name, value in found.items()}
    return {name: value for name, value in plain.items() if inspect.isfunction(value)}


CLASSES = {
    f"{one.__module__.split('.')[1]}.{one.__name__}": one
    for found in [*DOCUMENTED.values(), [Representation, World]]
    for one in found
    if inspect.isclass(one)
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_parameter_of_a_public_method_has_a_comment(name):
    shown = docs_module("showdoc")
    for own, method in methods_of(CLASSES[name]).items():
        said = shown.comments(method)
        without = [one.name for one in shown.parameters(method) if one.name not in [*said, "cls"]]
        assert without == [], f"{name}.{own}"


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
