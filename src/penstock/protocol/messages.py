"""The closed set of messages between the coordinator and a replica's host.

Every message is a msgspec structure, framed as a 4-byte big-endian length and a msgpack body. Nothing is pickled.
Structures on the hot path are arrays on the wire (`array_like`), carry no type names inside lists, and hold no
references that the garbage collector would have to follow (`gc=False`).

    coordinator -> host     Setup, Requests, TakeBack, Abort, Sleep, Wake, Close
    host -> coordinator     Hello, Loading, Ready, LoadFailed, Asleep, AnswerParts, Answers, Heartbeat

One conversation: the host sends Hello; the coordinator checks the version and sends Setup; Loading messages tell
what takes so long; then Ready or LoadFailed. From then on Requests flow one way and Answers the other, and a
Heartbeat is sent at least once a second, also while loading. Sleep is answered by Asleep, Wake by Ready or LoadFailed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from penstock.protocol.options import Options, Sampling
from penstock.protocol.payloads import Payload

PROTOCOL_VERSION = 2
MAX_MESSAGE_BYTES = 1 << 30

# Figures that come from outside are added up and divided by: a message with nonsense in one breaks the protocol.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
"""Of one answer: the sum over all rows of a run fits into 64 bits."""
Figure = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""Finite."""


BATCH_PRIORITY = 100
"""As `Submit.priority` of the core."""


class Request(msgspec.Struct, gc=False):
    """One request, from the step that renders it to the engine that answers it. On the wire it is a WireRequest.

    payload   None where it is not kept and is rendered again when it is sent
    options   None for Python steps
    id        the task; with `attempt` it names this try, and the answer repeats both
    seed      63 bits, derived from the seed of the run, row and step, where the step has none; None: the run has none
    step      index into PythonWork.functions for python pools; otherwise the step's number, for logs
    priority, rank   what waits in a host goes to its engine by these, lower first, equal ones as they came
    listener  0: one answer. Else its parts are sent as they come, to this listener of the coordinator
    arrived_s when it reached the host (`time.monotonic`), for engines that keep a schedule
    """

    payload: Payload | None
    options: Options | None = None
    id: int = 0
    attempt: int = 0
    seed: int | None = None
    step: int = 0
    priority: int = BATCH_PRIORITY
    rank: int = 0
    listener: int = 0
    arrived_s: float = 0.0

    @property
    def sampling(self) -> Sampling | None:
        options = self.options
        return options if type(options) is Sampling else None


class WireRequest(msgspec.Struct, array_like=True, gc=False):
    """A Request on its way. options: index into `Requests.options`; -1 for none."""

    id: int
    attempt: int
    payload: Payload
    options: int = -1
    seed: int | None = None
    step: int = 0
    priority: int = BATCH_PRIORITY
    rank: int = 0
    listener: int = 0


class Output(msgspec.Struct, array_like=True, gc=False):
    """One sampled continuation. finish_reason: stop | length. logprobs: one per output token, natural log."""

    text: str
    finish_reason: str
    tokens_out: Tokens
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None


class Answer(msgspec.Struct, array_like=True, gc=False):
    """The answer to one request.

    code      "" when it succeeded; else a code of `errors.DEAD_CODES` (the row's failure, not retried) or
              "retry" (the attempt's failure: try again, perhaps elsewhere)
    outputs   n of them for generate, else empty
    value     python: what the function returned; embedding, scores: an `Array`
    tokens_in the true length of the prompt, 0 where there are no tokens
    version   of the weights that answered, as `Capacity.version`; the host sets it where the engine does not
    """

    id: int
    attempt: int
    code: str = ""
    message: str = ""
    outputs: list[Output] = []
    value: Any = None
    tokens_in: Tokens = 0
    version: str = ""


class AnswerPart(msgspec.Struct, array_like=True, gc=False):
    """A piece of an answer, sent as it comes; the answer itself comes whole at the end.

    output         which of the n outputs
    text           what is new of it
    finish_reason  on the last piece of an output, else ""
    data           bytes of the stream that a raw body asked for, in place of a text
    """

    id: int
    attempt: int
    output: int
    text: str
    token_ids: list[int] | None = None
    finish_reason: str = ""
    data: bytes = b""


class Load(msgspec.Struct, array_like=True, gc=False):
    """What a host reports beside its answers. Cumulative figures count from Ready.

    executing, waiting  requests in the engine, and in the host's queue
    busy_s, fill_s      seconds with at least one request executing; integral of executing / slots over time
    progress            grows whenever the engine got anywhere (a token, a step, an answer)
    turnaround_s        a decaying maximum of the time from sending answers to receiving what replaced them
    sent_at             the host's monotonic clock; the coordinator echoes that of answers with what replaces them
    device_bytes        memory in use on the replica's devices (or by its processes); 0 when not known
    device_use          share of its devices' time in use (by NVML, or CPU time of its processes), 0 to 1
    """

    executing: Count
    waiting: Count
    busy_s: Figure
    fill_s: Figure
    progress: Count
    turnaround_s: Figure
    sent_at: Figure
    device_bytes: Count = 0
    device_use: Figure = 0.0


class Capacity(msgspec.Struct, frozen=True):
    """What a loaded replica can hold. kv_tokens 0: no limit in tokens. max_model_len 0: no limit.

    shared: the slots share one device, so that more requests at once slow each other down (all real models).
    can_sleep: it can give its devices' memory back and take it again
    version: of the weights; "" if unknown
    """

    slots: Count
    kv_tokens: Count = 0
    max_model_len: Count = 0
    facts: dict[str, str | int | float] = {}
    shared: bool = False
    can_sleep: bool = False
    version: str = ""


class EngineConfig(msgspec.Struct, frozen=True):
    """Everything a host needs to load a model; plain data, so that no host imports the spec.

    max_num_seqs, max_num_batched_tokens, utilization (share of a device), kv_bytes (per device): what the plan decided;
    None leaves it to the engine, and engine_options win. sleeps: the replica will be put to sleep between two phases.
    """

    engine: str
    ref: str
    revision: str | None = None
    task: str = "generate"
    dtype: str = "auto"
    quantization: str | None = None
    max_model_len: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    engine_options: dict[str, Any] = {}
    base_urls: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_bytes: int | None = None
    utilization: float | None = None
    sleeps: bool = False


class Hello(msgspec.Struct, tag="hello"):
    version: int
    penstock: str
    pid: int
    python: str


class PythonWork(msgspec.Struct, frozen=True):
    """What a worker of Python steps runs, in place of a model.

    functions  "module:name", by Request.step; "" where a step has none. One that can't be imported is sent by value
               (`function_transfer.py`)
    timeout_s  the limit of one call; None: it has none
    """

    functions: tuple[str, ...] = ()
    timeout_s: float | None = None


class Setup(msgspec.Struct, tag="setup"):
    """work: of a worker of Python steps; None: the engine of `config` runs a model."""

    replica: str
    config: EngineConfig
    work: PythonWork | None = None
    share: float = 1.0  # of the engine's slots and tokens that are used; less after it ran out of memory at work
    version: str = ""  # of the weights that are loaded, for engines that do not report it: the model's revision


class AnswerParts(msgspec.Struct, tag="parts"):
    """Parts for one listener. The coordinator hands `frame` on unread (`wire.decode_parts` reads it).

    first  (id, attempt) of the requests whose first part is in here: they must not be run again
    """

    listener: int
    first: list[tuple[int, int]]
    frame: bytes


class Requests(msgspec.Struct, tag="requests"):
    """Each of the options once. echo: `Load.sent_at` of the answers that these replace, or 0."""

    items: list[WireRequest]
    options: list[Options] = []
    echo: float = 0.0


def requests_message(requests: Iterable[Request], echo: float = 0.0) -> Requests:
    """Requests as a message. Options that are one object are sent once."""
    options: list[Options] = []
    places: dict[int, int] = {}
    items: list[WireRequest] = []
    for each in requests:
        index, own = -1, each.options
        if own is not None:
            found = places.get(id(own))
            if found is None:
                found = places[id(own)] = len(options)
                options.append(own)
            index = found
        payload = each.payload
        assert payload is not None, f"request {each.id} is sent without a payload"
        items.append(
            WireRequest(
                each.id, each.attempt, payload, index, each.seed, each.step, each.priority, each.rank, each.listener
            )
        )
    return Requests(items, options, echo)


class TakeBack(msgspec.Struct, tag="take_back"):
    """Return those of `ids` that the engine never saw. Answered by Answers with `returned` (perhaps empty)."""

    ids: list[int]


class Abort(msgspec.Struct, tag="abort"):
    """Stop these requests, and answer nothing for them. Cancellation only."""

    ids: list[int]


class Sleep(msgspec.Struct, tag="sleep"):
    """Give the devices' memory back; nothing is in flight. Answered by Asleep."""


class Wake(msgspec.Struct, tag="wake"):
    """Take the memory again. Answered by Ready, or LoadFailed."""


class Close(msgspec.Struct, tag="close"):
    """End cleanly: release the devices and exit 0."""


class Loading(msgspec.Struct, tag="loading"):
    message: str


class Ready(msgspec.Struct, tag="ready"):
    capacity: Capacity
    load_s: Figure


class LoadFailed(msgspec.Struct, tag="load_failed"):
    """`code`: missing_dependency | bad_model | out_of_memory | error. `message` is the cause itself."""

    code: str
    message: str


class Asleep(msgspec.Struct, tag="asleep"):
    """The devices' memory is free; the processes stay."""


class Answers(msgspec.Struct, tag="answers"):
    items: list[Answer]
    load: Load
    returned: list[int] | None = None  # not None: this answers a TakeBack
    sized: list[tuple[int, Tokens]] = []  # (id, true prompt tokens) of requests newly tokenised


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    load: Load


ToHost = Setup | Requests | TakeBack | Abort | Sleep | Wake | Close
ToCoordinator = Hello | Loading | Ready | LoadFailed | Asleep | AnswerParts | Answers | Heartbeat
