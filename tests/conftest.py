"""What holds for every test: seeded, no deadlines, CUDA tests only where there is CUDA."""

import hypothesis
import pytest
import torch

# A deadline would make a slow machine a failure; a random start would make a failure unrepeatable.
hypothesis.settings.register_profile("hybridjit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("hybridjit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
