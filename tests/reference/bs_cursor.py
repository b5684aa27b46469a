"""Fields, checksums and frames, as far as both pages of `docs/format/` use them."""

import struct
import sys
import zlib

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    import zstandard
    from zstandard import ZstdError

    def ZstdDecompressor() -> "zstandard.ZstdDecompressionObj":  # noqa: N802 - the name in the standard library
        return zstandard.ZstdDecompressor().decompressobj()


Data = bytes | memoryview


class FormatError(ValueError):
    """The file is not what the format pages describe."""


def check(holds: object, message: str) -> None:
    if not holds:
        raise FormatError(message)


class Cursor:
    """Little-endian fields of `data`, one after the other. Reading past the end is a `FormatError`."""

    def __init__(self, data: Data) -> None:
        self.data, self.at = memoryview(data), 0

    def take(self, n: int) -> memoryview:
        check(n <= len(self.data) - self.at, "the data ends too early")
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self) -> memoryview:
        return self.take(len(self.data) - self.at)

    def unpack(self, code: str, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code)))

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return self.unpack("H", 1)[0]

    def u32(self) -> int:
        return self.unpack("I", 1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                check(value < 1 << 64, "a varint over 64 bits")
                return value
        raise FormatError("a varint of more than ten bytes")

    def zeros(self, n: int) -> None:
        check(not any(self.take(n)), "padding that is not zero")

    def align(self, a: int) -> None:
        self.zeros(-self.at % a)

    def end(self) -> None:
        check(self.at == len(self.data), "bytes left over")


class Bits:
    """A bit string, lowest bit of the first byte first, from where `cursor` stands."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor, self.held, self.count = cursor, 0, 0

    def take(self, n: int) -> int:
        """The next `n` bits, the first one lowest."""
        while self.count < n:
            self.held |= self.cursor.u8() << self.count
            self.count += 8
        value = self.held & (1 << n) - 1
        self.held, self.count = self.held >> n, self.count - n
        return value

    def end(self) -> None:
        check(self.held == 0, "padding that is not zero")


def with_crc(data: Data, what: str) -> Cursor:
    """`data` without the CRC-32 that ends it."""
    cursor = Cursor(data)
    covered = cursor.take(max(len(data) - 4, 0))
    check(cursor.u32() == zlib.crc32(covered), f"the checksum of {what} differs")
    return Cursor(covered)


def unzstd(data: Data, limit: int) -> bytes:
    """The content of the one zstd frame in `data`. Small pieces in, so that `limit` holds whatever the frame claims."""
    source, frame, size = Cursor(data), ZstdDecompressor(), 0
    parts: list[bytes] = []
    try:
        while not frame.eof:
            piece = source.take(min(256, max(len(data) - source.at, 1)))
            parts.append(frame.decompress(piece))
            size += len(parts[-1])
            check(size <= limit, "a zstd frame unpacks to too much")
    except ZstdError as error:
        raise FormatError(f"zstd: {error}") from None
    check(not frame.unused_data, "bytes after the zstd frame")
    source.end()
    return b"".join(parts)
