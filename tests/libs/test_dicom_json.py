"""The JSON model of every real file at hand against pydicom's: an attribute read wrongly is shown wrongly."""

from pathlib import Path

import pytest

from tests.libs.json_oracle import require_same_model, walked
from tests.support.samples import every_file


def _files() -> list[Path]:
    return [path for path in every_file() if walked(path) is not None]


@pytest.mark.parametrize("path", _files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_json_model_equals_that_of_pydicom(path: Path) -> None:
    require_same_model(path)
