"""Add to the site of docs/: its notebooks as pages, the repository's other pages, its results, and a reference.

Links of the pages lead out of docs/ (`../results/...`, `../SECURITY.md`), as the repository needs them; those files lie
in the site too, and the links are shortened to match.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "distill", "explain", "evaluate")
TOP = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "SECURITY.md")
UP = re.compile(r"(\]\()\.\./(?!\.\.)")
REFERENCE = "reference"


def modules() -> dict[str, list[str]]:
    """List the modules of each folder with code: `distill/teachers` -> `distill.teachers`, `distill.teachers.base`."""
    found = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.stem != "__main__":
                name = path.relative_to(ROOT).with_suffix("")
                dotted = ".".join(name.parent.parts if path.stem == "__init__" else name.parts)
                found[name.parent.as_posix()].append(dotted)
    return dict(sorted(found.items()))


def on_config(config: Any) -> Any:
    """Add the reference, the changelog and the results to the navigation."""
    folders = modules()
    reference: list[Any] = [f"{REFERENCE}/index.md"]
    for package in PACKAGES:
        own = [folder for folder in folders if folder.split("/")[0] == package]
        reference.append({package: [{folder.replace("/", "."): f"{REFERENCE}/{folder}.md"} for folder in own]})
    results = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "results").glob("*/README.md"))
    measured = [{Path(path).parent.name: path} for path in results]
    top = [{"Contributing": "CONTRIBUTING.md"}]
    if (ROOT / "CHANGELOG.md").is_file():
        top.append({"Changelog": "CHANGELOG.md"})
    config.nav = [*config.nav[:-1], {"Judge and change": [*config.nav[-1]["Judge and change"], *top]}]
    config.nav += [{"Results": [*measured, {"benchmarks": "results/benchmarks.md"}]}, {"API reference": reference}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add notebooks as pages, the files that lie outside docs/, and a page of the reference for each folder with code.

    Notebooks lie there executed: nothing of them is run.
    """
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        body, made = MarkdownExporter().from_filename(str(path), {"output_files_dir": path.stem})
        files.append(File.generated(config, f"{path.stem}.md", content=body))
        for name, content in made["outputs"].items():
            files.append(File.generated(config, name, content=content))
    for path in [ROOT / name for name in TOP] + sorted((ROOT / "results").rglob("*")):
        if path.is_file():
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    folders = modules()
    for folder, names in folders.items():
        title = folder.replace("/", ".")
        body = "\n\n".join(f"::: {name}" for name in names)
        files.append(File.generated(config, f"{REFERENCE}/{folder}.md", content=f"# {title}\n\n{body}\n"))
    index = "\n".join(f"- [{folder.replace('/', '.')}]({folder}.md)" for folder in folders)
    text = f"# API reference\n\nEvery public module, class and function, from its docstring.\n\n{index}\n"
    files.append(File.generated(config, f"{REFERENCE}/index.md", content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links out of docs/ to where those files lie in the site; keep long tables of results out of the search."""
    path = page.file.src_uri
    if path.startswith("results/"):
        if not path.endswith("README.md"):
            page.meta["search"] = {"exclude": True}
        return markdown.replace("](../../docs/", "](../../")
    if "/" not in path:
        markdown = re.sub(r"\]\(README\.md(#[^)]*)?\)", "](index.md)", markdown.replace("](docs/", "]("))
        return UP.sub(r"\1", markdown)
    return markdown
