"""Which distribution, in which version, an import name of ours comes from."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = {
    "flows": "neo3df",
    "arap_diff": "arap-diff",
    "dataset_builder": "neo3df-dataset-builder",
    "segmodel": "neo3df-segmodel",
    "editing": "neo3df-editing",
    "fitting": "neo3df-fitting",
}


@cache
def package_version(package: str) -> str:
    """The installed version of a package (import name of ours, or any distribution name).

    Raises ValueError where it is not installed.
    """
    try:
        return version(DISTRIBUTIONS.get(package, package))
    except PackageNotFoundError as error:
        raise ValueError(f"package {package!r} is not installed (pip install neo3df)") from error
