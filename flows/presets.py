"""Where the configurations that come with the program are found."""

from pathlib import Path

from .errors import UserError


def preset(name: str) -> Path:
    """The path of ``configs/<name>.yaml``: below the working folder, else beside or inside the installed package."""
    package = Path(__file__).resolve().parent
    candidates = [folder / "configs" / f"{name}.yaml" for folder in (Path.cwd(), package, package.parent)]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"there is no preset {name}; looked for {', '.join(str(path) for path in candidates)}")
