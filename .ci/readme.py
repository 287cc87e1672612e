"""Write README.md and its pictures from nbs/index.ipynb: prose, code, text results, figures."""

import base64
import re
from pathlib import Path

import nbformat

root = Path(__file__).resolve().parent.parent
title, *cells = nbformat.read(root / "nbs" / "index.ipynb", as_version=4).cells
parts = [re.sub(r"^- \w+:.*\n?", "", title.source, flags=re.M).strip()]
for number, cell in enumerate(cells):
    if cell.cell_type == "markdown":
        parts.append(re.sub(r"\]\((?=[\w/]+\.ipynb)", "](nbs/", cell.source))
    elif "#| hide" not in cell.source:
        code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|"))
        parts += [f"```python\n{code}\n```"] if "#| echo: false" not in cell.source else []
    for output in cell.get("outputs", []):
        if output.get("output_type") == "stream" and output.name == "stderr":
            continue
        data = output.get("data", {})
        if "text/markdown" in data:
            parts.append(data["text/markdown"].strip())
        elif "image/png" in data:
            picture = root / "nbs" / "images" / f"index-{number}.png"
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(base64.b64decode(data["image/png"]))
            said = re.search(r'^#\| fig-alt: "(.+)"$', cell.source, re.M)
            parts.append(f"![{said[1] if said else ''}]({picture.relative_to(root)})")
        elif text := output.get("text") or data.get("text/plain"):
            parts.append(f"```\n{text.rstrip()}\n```")
(root / "README.md").write_text(
    "<!-- made from nbs/index.ipynb by `make readme` -->\n\n" + "\n\n".join(parts) + "\n"
)
