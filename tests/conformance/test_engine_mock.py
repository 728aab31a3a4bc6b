from __future__ import annotations

import pytest

from penstock.protocol.messages import EngineConfig
from penstock.testing.engines import EngineConformance

pytestmark = pytest.mark.process


class TestMock(EngineConformance):
    config = EngineConfig("mock", "mock:x", engine_options={"slots": 4, "ms_per_row": 1, "ms_per_token": 0.1})
    bad_config = EngineConfig("mock", "mock:x", engine_options={"slot": 4})


class TestFreeMock(EngineConformance):
    config = EngineConfig("mock", "mock:x", engine_options={"slots": 2})
    bad_config = EngineConfig("mock", "mock:x", engine_options={"slots": 0})
