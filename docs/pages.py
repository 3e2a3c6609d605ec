"""Pages of the manual that are written elsewhere in the repository, and links out of docs/ (a hook of MkDocs).

A package's page is its README and then its interface from the docstrings. Links between files of the repository, which
work on a forge, become links between pages; a file that is no page keeps its name and loses its link.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("arap_diff", "dataset_builder", "segmodel", "editing", "fitting")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
SOURCE = re.compile(r"packages/\w+/src/(\w+)/.*\.py")
PUBLIC = re.compile(r"`([\w.]+)`")
PAGES = {
    **{f"packages/{name}/README.md": f"packages/{name}.md" for name in PACKAGES},
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "examples": "examples.md",
}


def page_of(path: str, label: str) -> str | None:
    """The page or picture (relative to docs/) that a file of the repository has in the manual, or None.

    A module's is its package's page, if the link's label is a public name: ``fitting.Camera``.
    """
    if path in PAGES:
        return PAGES[path]
    if (module := SOURCE.match(path)) and (name := PUBLIC.fullmatch(label)):
        return f"packages/{module[1]}.md#{name[1]}" if name[1].startswith(f"{module[1]}.") else None
    if path.startswith("examples/") and path.endswith(".py"):
        return f"examples.md#{posixpath.basename(path).removesuffix('.py')}"
    if path.startswith("docs/") and not path.endswith((".py", "/")) and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return None


def with_page_links(text: str, source: str, page: str) -> str:
    """Markdown of the file ``source`` as the page ``page``: links lead to pages, or nowhere."""

    def replace(link: re.Match[str]) -> str:
        mark, label, target, anchor = link.groups()
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / found).exists() and found not in PAGES:
            return link[0]  # MkDocs says that it leads nowhere
        if (there := page_of(found, label)) is None:
            return label if label.startswith("`") else f"`{label}`"
        return f"{mark}[{label}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor or ''})"

    return LINK.sub(replace, text)


def hidden_behind_modules(name: str) -> str:
    """Directives for the public functions that have the name of their module, which would be shown in their place."""
    package = ROOT / "packages" / name / "src" / name
    exported = re.findall(r'^    "(\w+)",$', (package / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    options = "\n    options:\n      show_root_heading: true\n      heading_level: 3\n"
    hidden = [x for x in exported if (package / f"{x}.py").is_file()]
    return "".join(f'\n<a id="{name}.{x}"></a>\n\n::: {name}.{x}.{x}{options}' for x in hidden)


def package_pages() -> Iterator[tuple[str, str, str]]:
    """Source, page and content of each package's page."""
    for name in PACKAGES:
        source = f"packages/{name}/README.md"
        readme = (ROOT / source).read_text(encoding="utf-8")
        hidden = hidden_behind_modules(name)
        interface = f"## Interface of `{name}`\n\nFrom the docstrings; shapes and letters as in [the conventions]"
        yield (
            source,
            f"packages/{name}.md",
            f"{readme}\n\n{interface}(../../docs/CONVENTIONS.md).\n\n::: {name}\n{hidden}",
        )


def examples_page() -> str:
    """Every numbered example on one page."""
    parts = [
        "# Examples\n\nOne idea each; every one runs in the test command. Run them in the folder of the repository."
    ]
    for path in sorted((ROOT / "examples").glob("[0-9]*.py")):
        parts.append(f"## {path.name} {{ #{path.stem} }}\n\n```python\n{path.read_text(encoding='utf-8')}```")
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written elsewhere."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    written = [*package_pages(), ("CONTRIBUTING.md", "contributing.md", contributing)]
    for source, page, content in [*written, ("examples/README.md", "examples.md", examples_page())]:
        files.append(File.generated(config, page, content=with_page_links(content, source, page)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to pages."""
    if page.file.generated_by:
        return markdown
    source = page.file.src_uri
    return with_page_links(markdown, f"docs/{source}", source)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Resolve paths from the repository, wherever the command was given."""
    os.chdir(ROOT)
    return config
