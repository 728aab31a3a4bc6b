"""The record of the engine that runs the functions of Python steps; no model can name it."""

from penstock.engine_info import EngineInfo

INFO = EngineInfo(
    name="python",
    adapter="penstock.engines.python.engine:PythonEngine",
    tasks=("python",),
    payloads=frozenset({"row"}),
    honours=frozenset(),
)
