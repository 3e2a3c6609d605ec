import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fake():
    """The module ``fake_pipeline.py``."""
    path = Path(__file__).with_name("fake_pipeline.py")
    spec = importlib.util.spec_from_file_location("fake_pipeline", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_pipeline"] = module
    spec.loader.exec_module(module)
    return module
