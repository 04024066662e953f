// SPDX-License-Identifier: Apache-2.0
//
// Bytes in and out: variable-length integers, texts, and the checksum.
//
// Guarantee: a cursor never reads past its end and never allocates more than the bytes it has.
// Source: LEB128 integers; zigzag for signed ones; CRC-32C (Castagnoli polynomial).

/// Appends encoded values to a buffer.
struct ByteWriter {
  private(set) var bytes: [UInt8] = []

  var count: Int { bytes.count }

  mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }

  mutating func byte(_ value: UInt8) { bytes.append(value) }

  mutating func varint(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  mutating func zigzag(_ value: Int64) {
    varint(UInt64(bitPattern: (value << 1) ^ (value >> 63)))
  }

  mutating func text(_ value: String) {
    varint(UInt64(value.utf8.count))
    bytes.append(contentsOf: value.utf8)
  }

  mutating func littleEndian(_ value: some FixedWidthInteger) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  mutating func append(_ other: [UInt8]) { bytes.append(contentsOf: other) }
}

/// Reads encoded values from part of a buffer.
struct ByteCursor {
  private let bytes: [UInt8]
  private(set) var offset: Int
  let end: Int

  /// - Precondition: `range` lies inside `bytes`.
  init(_ bytes: [UInt8], _ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
    self.bytes = bytes
    offset = range.lowerBound
    end = range.upperBound
  }

  init(_ bytes: [UInt8]) { self.init(bytes, 0..<bytes.count) }

  var remaining: Int { end - offset }
  var isAtEnd: Bool { offset == end }

  mutating func byte() throws(Malformed) -> UInt8 {
    guard offset < end else { throw .corrupted("a value is cut short") }
    defer { offset += 1 }
    return bytes[offset]
  }

  mutating func varint() throws(Malformed) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while true {
      let next = try byte()
      guard shift < 63 || next <= 1 else { throw .corrupted("a number has more than 64 bits") }
      value |= UInt64(next & 0x7f) << shift
      if next < 0x80 { return value }
      shift += 7
    }
  }

  mutating func zigzag() throws(Malformed) -> Int64 {
    let word = try varint()
    return Int64(bitPattern: word >> 1) ^ -Int64(bitPattern: word & 1)
  }

  /// A number that must be at most `limit`.
  mutating func varint(atMost limit: Int, _ what: String) throws(Malformed) -> Int {
    let value = try varint()
    guard value <= UInt64(limit) else { throw .corrupted("\(what) is \(value), above \(limit)") }
    return Int(value)
  }

  mutating func text(_ what: String) throws(Malformed) -> String {
    let length = try varint(atMost: remaining, "the length of \(what)")
    let range = offset..<(offset + length)
    offset += length
    guard let text = String(validating: bytes[range], as: UTF8.self) else {
      throw .corrupted("\(what) is not UTF-8")
    }
    return text
  }

  /// A part of this buffer whose length comes first.
  mutating func part(_ what: String) throws(Malformed) -> ByteCursor {
    let length = try varint(atMost: remaining, "the length of \(what)")
    defer { offset += length }
    return ByteCursor(bytes, offset..<(offset + length))
  }
}

/// CRC-32C, eight bytes at a step.
enum Checksum {
  /// `tables[k][b]`: the checksum of byte `b` followed by `k` zero bytes.
  private static let tables: [[UInt32]] = {
    var first = (0..<256).map { (byte: Int) -> UInt32 in
      (0..<8).reduce(UInt32(byte)) { crc, _ in
        crc & 1 == 1 ? (crc >> 1) ^ 0x82f6_3b78 : crc >> 1
      }
    }
    var all = [first]
    for _ in 1..<8 {
      first = first.map { ($0 >> 8) ^ all[0][Int($0 & 0xff)] }
      all.append(first)
    }
    return all
  }()

  /// The checksum of `bytes`, continued from `seed` (the checksum of what came before, or 0).
  static func crc32c(_ bytes: ArraySlice<UInt8>, seed: UInt32 = 0) -> UInt32 {
    let tables = tables
    var crc = ~seed
    var index = bytes.startIndex
    while bytes.endIndex - index >= 8 {
      var next: UInt32 = 0
      for step in 0..<4 {
        let mixed = bytes[index + step] ^ UInt8(truncatingIfNeeded: crc >> (8 * UInt32(step)))
        next ^= tables[7 - step][Int(mixed)]
      }
      for step in 4..<8 { next ^= tables[7 - step][Int(bytes[index + step])] }
      crc = next
      index += 8
    }
    while index < bytes.endIndex {
      crc = (crc >> 8) ^ tables[0][Int(UInt8(truncatingIfNeeded: crc) ^ bytes[index])]
      index += 1
    }
    return ~crc
  }
}
