"""How the pages show a public name: its call as one would write it, its fields and methods, and no wrong links."""

import ast
import dataclasses
import inspect
import pkgutil
import re
import textwrap
from importlib import import_module

from nbdev.showdoc import BasicMarkdownRenderer

import waddington_nb

COLUMNS = 88


def arguments(node: ast.FunctionDef) -> list[ast.arg]:
    "Every parameter of a function, in its source."
    own = node.args
    return [
        *own.posonlyargs,
        *own.args,
        *filter(None, [own.vararg]),
        *own.kwonlyargs,
        *filter(None, [own.kwarg]),
    ]


def comments(symbol) -> dict[str, str]:
    "What is said beside each parameter of a function, or each field of a class, in its source."
    try:
        source = textwrap.dedent(inspect.getsource(symbol))
    except (OSError, TypeError):
        return {}
    lines, node = source.splitlines(), ast.parse(source).body[0]
    if isinstance(node, ast.ClassDef):
        named = [(n.target.id, n.end_lineno) for n in node.body if isinstance(n, ast.AnnAssign)]
        own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        named += [(a.arg, a.end_lineno) for n in own for a in arguments(n)]
    else:
        named = [(a.arg, a.end_lineno) for a in arguments(node)]
    last = {line: name for name, line in named}
    found = {name: re.search(r"(?<=[^\s#])\s+# (.+)$", lines[line - 1]) for line, name in last.items()}
    return {name: match[1] for name, match in found.items() if match}


def plain(annotation) -> str:
    "An annotation without the modules of its names."
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text).replace("NoneType", "None")


def default(value, home: dict) -> str:
    "A default as one would write it: functions, and tables of functions, by the names they have in their module."
    if isinstance(value, dict) and value:
        return next((name for name, own in home.items() if own is value), "{…}")
    if repr(value) == "<factory>":  # of a field of a dataclass
        return "…"
    if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        return f"({', '.join(f'{type(one).__name__}(…)' for one in value)})"
    return value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value)


def parameter(one: inspect.Parameter, home: dict) -> str:
    "A parameter with annotation and default; `home` holds the names of its module."
    star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    text = star + one.name + (f": {plain(one.annotation)}" if one.annotation is not one.empty else "")
    return text if one.default is one.empty else f"{text} = {default(one.default, home)}"


def parameters(symbol) -> list[inspect.Parameter] | None:
    "The parameters that a caller gives; None for a class that is not called."
    if inspect.isclass(symbol) and getattr(symbol, "_is_protocol", False):
        return None
    try:
        found = list(inspect.signature(symbol).parameters.values())
    except (ValueError, TypeError):
        return None
    nothing = inspect.isclass(symbol) and {one.kind for one in found} <= {2, 4}
    return None if nothing else [one for one in found if one.name != "self"]


def result(symbol) -> str:
    "What a function returns."
    try:
        returned = inspect.signature(symbol).return_annotation
    except (ValueError, TypeError):
        return ""
    return "" if inspect.isclass(symbol) or returned is inspect.Signature.empty else f" -> {plain(returned)}"


def call(symbol, name: str) -> str:
    "A call with its parameters, one a line where they do not fit into one."
    kind, listed = "class" if inspect.isclass(symbol) else "def", parameters(symbol)
    if listed is None:
        return f"{kind} {name}"
    home = getattr(symbol, "__globals__", None) or vars(inspect.getmodule(symbol) or inspect)
    parts, keywords = [], False
    said = {own: note.replace("`", "") for own, note in comments(symbol).items()}  # no links inside code
    for one in listed:
        if (
            one.kind is one.KEYWORD_ONLY
            and not keywords
            and not any(p.kind is p.VAR_POSITIONAL for p in listed)
        ):
            parts.append(("*", ""))
        keywords = keywords or one.kind is one.KEYWORD_ONLY
        parts.append((parameter(one, home), said.get(one.name, "")))
    line = f"{kind} {name}({', '.join(text for text, _ in parts)}){result(symbol)}"
    if len(line) <= COLUMNS and not any(note for _, note in parts):
        return line
    lines = [f"    {text}," + (f"  # {note}" if note else "") for text, note in parts]
    return "\n".join([f"{kind} {name}(", *lines, f"){result(symbol)}"])


def calls(symbol, name: str) -> str:
    "The call; of a verb, those of every kind of task that it takes."
    verbs = getattr(symbol, "registry", {})
    kinds = [own for kind, own in verbs.items() if kind is not object] if hasattr(symbol, "dispatch") else []
    return "\n\n".join(call(own, name) for own in kinds or [symbol])


def summary(symbol) -> str:
    "The first line of what is said about a name."
    return (inspect.getdoc(symbol) or "").split("\n")[0].replace("|", "\\|")


def unlinked(text: str, listed: list[inspect.Parameter] | None) -> str:
    "A parameter may be named like a function of another page: as code in HTML it becomes no link."
    for one in listed or []:
        text = text.replace(f"`{one.name}`", f"<code>{one.name}</code>")
    return text


def members(symbol: type) -> list[tuple[str, str]]:
    "Public methods and properties that a class of this package has, each with what it does."
    rows = {}
    for own in reversed(
        [c for c in symbol.__mro__ if c.__module__.startswith(("waddington_nb", "__main__"))]
    ):
        for name, value in vars(own).items():
            value = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
                continue
            listed = parameters(value) if inspect.isfunction(value) else []
            names = ", ".join(
                one.name + ("=…" if one.default is not one.empty else "") for one in listed or []
            )
            shown = f"{name}({names})" if inspect.isfunction(value) else name
            rows[name] = (shown, unlinked(summary(value), listed) or rows.get(name, ("", ""))[1])
    return list(rows.values())


class Renderer(BasicMarkdownRenderer):
    "A name with its call, what it does, and what a class offers."

    def __init__(self, sym, *args, **kwargs):
        super().__init__(sym, *args, **kwargs)
        if hasattr(sym, "registry"):  # a verb, not the plain function that it wraps
            for module in pkgutil.iter_modules(waddington_nb.__path__):  # each may know a kind of task
                import_module(f"waddington_nb.{module.name}")
            self.sym = sym

    def _repr_markdown_(self) -> str:
        head = super()._repr_markdown_().split("```python")[0]
        said = unlinked(self.docs or "", parameters(self.sym))
        text = f"{head}```python\n{calls(self.sym, self.nm)}\n```\n\n{said}"
        offered = members(self.sym) if inspect.isclass(self.sym) else []
        if offered:
            at = lambda shown: (
                f"{self.nm}.{re.split('[(]', shown)[0]}".lower()
            )  # where links to a method lead
            rows = "\n".join(f'| <code id="{at(shown)}">{shown}</code> | {does} |' for shown, does in offered)
            text += f"\n\n| it offers | what it does |\n|---|---|\n{rows}"
        return text
