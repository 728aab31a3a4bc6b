"""The decompressed bytes of a text file, with every failure raised as an InputError that names the file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from penstock.data.passing import may_pass
from penstock.data.paths import DataFile
from penstock.errors import InputError

if TYPE_CHECKING:
    from penstock.data.proof import FileProof

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ZSTD_INPUT_BYTES = 1024
UTF8_MARK = b"\xef\xbb\xbf"


class ByteStream(Protocol):
    """What the line reader needs: some bytes, at most `size`, or b"" at the end."""

    def read(self, size: int) -> bytes: ...

    def raw_bytes(self) -> int | None: ...

    def close(self) -> None: ...


class _ProvenBytes:
    """The bytes of a file up to the size that it had when the source was opened, each hashed as it is read. What is
    written behind them later is not part of the source."""

    def __init__(self, raw: BinaryIO, proof: FileProof) -> None:
        self._raw, self._proof = raw, proof
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        left = self._proof.file.size_bytes - self._at
        data = self._raw.read(left if size < 0 else min(size, left)) if left else b""
        if left and size and not data:
            self._proof.refuse_shorter()
            raise InputError(f"is truncated: {left} bytes are missing", where=self._proof.file.name)
        self._proof.feed(self._at, self._at + len(data), (data,))
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at

    @property
    def closed(self) -> bool:
        return self._raw.closed

    def close(self) -> None:
        self._raw.close()


class FileStream:
    """A plain, gzip or zstd file as a stream of bytes. `read` returns what one read of the file gives. proof: gets what
    is read; None where that is of no interest."""

    def __init__(self, file: DataFile, proof: FileProof | None = None) -> None:
        self._file = file
        try:
            raw = open(file.path if proof is None else proof.path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise InputError(f"can't be opened: {error.strerror}", where=file.name, passing=may_pass(error)) from None
        self._raw: Any = raw if proof is None else _ProvenBytes(raw, proof)
        self._read = self._decompressed_reader()
        self._begun = False

    def read(self, size: int) -> bytes:
        try:
            data = self._read(size)
        except EOFError:
            raise self._damaged("the compressed data ends early; it is probably a partial upload") from None
        except gzip.BadGzipFile as error:
            raise self._damaged(f"is not gzip data ({error}); correct its suffix, or copy it again") from None
        except zlib.error as error:
            raise self._damaged(f"read failed: {error}") from None
        except OSError as error:
            message = f"read failed after byte {self._offset()}: {error.strerror or error}"
            raise InputError(message, where=self._file.name, passing=may_pass(error)) from None
        except Exception as error:  # zstandard's own error class is known only where it is installed
            if type(error).__name__ != "ZstdError":
                raise
            raise self._damaged(f"can't be decompressed as zstd: {error}") from None
        if not self._begun and data:
            self._begun = True
            data = self._without_mark(data)
        return data

    def raw_bytes(self) -> int | None:
        """How far a compressed file was read, in its own bytes; None for a plain one, where offsets tell more."""
        return self._raw.tell() if self._file.compression and not self._raw.closed else None

    def close(self) -> None:
        self._raw.close()

    def _offset(self) -> int:
        """How far the file was read, in its own bytes."""
        try:
            return self._raw.tell()
        except OSError:
            return 0

    def _decompressed_reader(self) -> Callable[[int], bytes]:
        if self._file.compression == "gzip":
            return gzip.GzipFile(fileobj=self._raw).read1  # read1: what was read before a failure is not lost
        if self._file.compression == "zstd":
            return ZstdBytes(self._raw).read
        read: Callable[[int], bytes] = self._raw.read
        return read

    def _without_mark(self, data: bytes) -> bytes:
        if data[:2] in _UTF16_MARKS:
            raise self._damaged("is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
        return data[3:] if data.startswith(UTF8_MARK) else data

    def _damaged(self, message: str) -> InputError:
        return InputError(message, where=self._file.name)


class ZstdBytes:
    """The content of zstd frames one after the other. Raises EOFError when the last one is not complete.

    zstandard's own stream reader ends quietly in the middle of a frame. Its decompressor objects tell, yet give out
    all that their input holds: a block of 4 bytes may hold 128 KiB. So the input is fed in small pieces.
    """

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._input = b""

    def read(self, size: int) -> bytes:
        """At least `size` bytes (at most 32 MiB more), or fewer at the end."""
        parts: list[bytes] = []
        length = 0
        while length < size:
            data = self._input or self._raw.read(_ZSTD_INPUT_BYTES)
            if not data:
                if self._frame is not None and not parts:
                    raise EOFError
                break
            self._frame = self._frame or self._new_frame()
            parts.append(self._frame.decompress(data))
            length += len(parts[-1])
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        return b"".join(parts)
