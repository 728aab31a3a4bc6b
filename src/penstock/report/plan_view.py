"""A plan as a rich renderable. No information is conveyed by color alone.

the plan fits · 2 replicas on 1 node, 8 devices in use

writer · llama-70b · vllm · bfloat16 · weights 141.1 GB · 327.7 kB of KV cache per token
  2 replicas of tp=4 pp=1, 4 devices each
  memory of a device  ████████████▓▓▓▓▓▓▓▓▓▓▓▓▒░░░  80.0 GB
                      █ weights 35.3 GB  ▓ KV cache 34.8 GB  ▒ activations 1.8 GB  ░ reserve 8.1 GB
  at once             up to 1,024 requests · KV cache for 425,312 tokens: 3.2 requests at the full 131,072
  where               a-0  writer-0 gpu:0-3 · writer-1 gpu:4-7
  not taken           tp=1 pp=1  weights 141.1 GB, device 80.0 GB
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from penstock import units
from penstock.planner.fit import Memory
from penstock.planner.result import ModelPlan, Plan, ReplicaPlan

__all__ = ["view"]

_PARTS = (("weights", "█", "blue"), ("kv", "▓", "green"), ("activations", "▒", "yellow"), ("reserve", "░", "dim"))
_WORDS = {"kv": "KV cache"}
_BAR_WIDTH = 50
_NODES_SHOWN = 12
_NAMED_REPLICAS = 4  # of one node; more are summarized by number and devices


def view(plan: Plan, *, width: int) -> RenderableType:
    """The whole plan, for a terminal of `width` characters."""
    parts: list[RenderableType] = [*_heading(plan)]
    for name, model in plan.models.items():
        parts += [Text(), _title(name, model), *_model(plan, model, width)]
    if len(plan.phases) > 1:
        lines = [f"{number}. {', '.join(names)}" for number, names in enumerate(plan.phases, start=1)]
        parts += [Text(), Text("phases, one after another", style="bold"), *(Text(f"  {line}") for line in lines)]
    if plan.notes:
        parts.append(Text())
        parts += [_hanging("note", note) for note in plan.notes]
    return Group(*parts)


def _heading(plan: Plan) -> list[RenderableType]:
    if plan.fits:
        replicas = [replica for model in plan.models.values() for replica in model.replicas]
        placed = [replica for replica in replicas if replica.memory.device]
        devices = {device for replica in placed for device in replica.devices}
        nodes = {node for replica in replicas for node in replica.nodes}
        what = "core" if any("/cpu:" in device for device in devices) else "device"
        text = f" · {units.noun(len(replicas), 'replica')} on {units.noun(len(nodes), 'node')}"
        text += f", {units.noun(len(devices), what)} in use" if devices else ""
        return [Text.assemble(("the plan fits", "bold green"), text)]
    parts: list[RenderableType] = [Text("the plan does not fit", style="bold red")]
    parts += [Padding(Text(line), (0, 0, 0, 2)) for line in (plan.reason or "").splitlines()]
    if plan.alternatives:
        parts += [Text(), Text("what would fit", style="bold")]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in plan.alternatives]
    return parts


def _title(name: str, model: ModelPlan) -> Text:
    others = [other for other in model.names if other != name]
    title = Text.assemble((name, "bold"), f" = {', '.join(others)}" if others else "")
    facts = [_short(model.ref), model.engine]
    if model.weights_bytes:
        facts += [model.dtype, model.quantization or "", f"weights {units.byte_size(model.weights_bytes)}"]
    if model.kv_bytes_per_token:
        facts.append(f"{units.byte_size(model.kv_bytes_per_token)} of KV cache per token")
    if model.confidence != "exact":
        facts.append(model.confidence)
    title.append("".join(f" · {fact}" for fact in facts if fact))
    return title


def _short(ref: str) -> str:
    """The last part of a path, a hub id as it is."""
    return ref.rstrip("/").rpartition("/")[2] if ref.startswith(("/", ".", "~")) else ref


def _model(plan: Plan, model: ModelPlan, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for alike in _alike(model.replicas):
        parts.append(Padding(_block(model, alike, width, phases=len(plan.phases) > 1), (0, 0, 0, 2)))
    rows = [("why", Text(line)) for line in model.explanation]
    rejected = Table.grid(Column(no_wrap=True), Column(), padding=(0, 2, 0, 0))
    for each in model.rejected:
        rejected.add_row(Text(each.layout, style="dim"), Text(each.reason, style="dim"))
    if model.rejected:
        rows.append(("rejected", rejected))  # type: ignore[arg-type]
    if rows:
        parts.append(Padding(_labelled(rows), (0, 0, 0, 2)))
    return parts


def _labelled(rows: Sequence[tuple[str, RenderableType]]) -> Table:
    grid = Table.grid(Column(width=11, no_wrap=True), Column(), padding=(0, 2, 0, 0))
    last = ""
    for label, content in rows:
        grid.add_row(Text("" if label == last else label, style="dim"), content)
        last = label
    return grid


def _alike(replicas: Sequence[ReplicaPlan]) -> list[list[ReplicaPlan]]:
    """Replicas that differ in nothing but where they are."""
    groups: dict[tuple[object, ...], list[ReplicaPlan]] = {}
    for replica in replicas:
        key = (
            replica.tensor_parallel,
            replica.pipeline_parallel,
            replica.memory,
            replica.max_num_seqs,
            replica.phases,
        )
        groups.setdefault(key, []).append(replica)
    return list(groups.values())


def _block(model: ModelPlan, alike: list[ReplicaPlan], width: int, *, phases: bool) -> Table:
    first = alike[0]
    layout = f"{units.noun(len(alike), 'replica')} of tp={first.tensor_parallel} pp={first.pipeline_parallel}"
    on_cores = "/cpu:" in first.devices[0]
    each = units.noun(len(first.devices), "core" if on_cores else "device") + " each"
    if not first.memory.device:
        each = "no device needed"
    when = f", in phase {' and '.join(str(phase + 1) for phase in first.phases)}" if phases else ""
    rows: list[tuple[str, RenderableType]] = [("replicas", Text(f"{layout}, {each}{when}", style="bold"))]
    if first.memory.device and first.memory.weights:
        rows += [("memory", line) for line in _bar(first.memory, min(_BAR_WIDTH, width - 40), on_cores)]
    rows.append(("concurrency", Text(_concurrency(model, first))))
    rows += [("where", Text(line)) for line in _places(alike)]
    return _labelled(rows)


def _bar(memory: Memory, width: int, on_cores: bool) -> list[Text]:
    """The parts of one device, each at least one character wide where it is there at all."""
    sizes = [getattr(memory, name) for name, _, _ in _PARTS]
    cells = [max(1, round(size / memory.device * width)) if size else 0 for size in sizes]
    cells[cells.index(max(cells))] += width - sum(cells)
    of = "the cores' memory" if on_cores else "each device"
    bar = Text()
    for (_, mark, style), count in zip(_PARTS, cells, strict=True):
        bar.append(mark * count, style=style)
    bar.append(f"  {units.byte_size(memory.device)} of {of}")
    legend = Text()
    for (name, mark, style), size in zip(_PARTS, sizes, strict=True):
        if not size:
            continue
        legend.append(f"{mark} ", style=style)
        word = "unused" if on_cores and name == "reserve" else _WORDS.get(name, name)
        legend.append(f"{word} {units.byte_size(size)}   ")
    return [bar, legend]


def _concurrency(model: ModelPlan, replica: ReplicaPlan) -> str:
    text = f"up to {units.noun(replica.max_num_seqs, 'request')}"
    if not replica.kv_tokens:
        return text
    text += f" · KV cache for {units.count(replica.kv_tokens)} tokens"
    if model.max_model_len:
        full = replica.kv_tokens / model.max_model_len
        most = units.count(model.max_model_len)
        many = "all of them" if full >= replica.max_num_seqs else f"{full:,.1f} requests"
        text += f": {many} at the full {most}"
    return text


def _places(alike: list[ReplicaPlan]) -> list[str]:
    """Which replicas lie on which devices, a line for each node or set of nodes."""
    by_nodes: dict[tuple[str, ...], list[ReplicaPlan]] = {}
    for replica in alike:
        by_nodes.setdefault(replica.nodes, []).append(replica)
    lines = []
    for nodes, here in list(by_nodes.items())[:_NODES_SHOWN]:
        if len(here) > _NAMED_REPLICAS:
            devices = [device for replica in here for device in replica.devices]
            text = f"{here[0].id} ... {here[-1].id} on {_devices(devices, nodes)}"
        else:
            text = " · ".join(f"{replica.id} {_devices(replica.devices, nodes)}" for replica in here)
        lines.append(f"{', '.join(nodes)}: {text}")
    left = list(by_nodes.values())[_NODES_SHOWN:]
    if left:
        replicas = units.noun(sum(map(len, left)), "replica")
        lines.append(f"and {replicas} on {units.noun(len(left), 'node')} more")
    return lines


def _devices(devices: Sequence[str], nodes: tuple[str, ...]) -> str:
    """gpu:0-3 for consecutive ones; across nodes each node with its own."""
    found = []
    for node in nodes:
        names = [device.rpartition("/")[2] for device in devices if device.rpartition("/")[0] == node]
        kind = names[0].partition(":")[0]
        ranges = _ranges([name.partition(":")[2] for name in names])
        found.append(f"{kind}:{ranges}" if len(nodes) == 1 else f"{node}/{kind}:{ranges}")
    return " + ".join(found)


def _ranges(names: list[str]) -> str:
    if not all(name.isdecimal() for name in names):
        return ",".join(names)
    numbers = sorted(map(int, names))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _hanging(label: str, text: str) -> Table:
    grid = Table.grid(Column(no_wrap=True), Column(), padding=(0, 1, 0, 0))
    grid.add_row(Text(f"{label}:", style="yellow"), Text(text))
    return grid
