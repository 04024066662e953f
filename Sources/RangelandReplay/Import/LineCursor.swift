// SPDX-License-Identifier: Apache-2.0
//
// Reads fields of one line of text without making strings of them.
//
// Guarantee: never reads outside the line; a field that is not there is nil and moves nothing.

struct LineCursor {
  private let base: UnsafePointer<UInt8>
  private(set) var offset = 0
  let count: Int

  /// - Precondition: `line` stays valid while the cursor is used.
  init(_ line: UnsafeBufferPointer<UInt8>) {
    // An empty line may have no address; nothing is read from it then.
    base = line.baseAddress ?? UnsafePointer(bitPattern: 1)!
    count = line.count
  }

  var isAtEnd: Bool { offset == count }
  var peek: UInt8? { offset < count ? base[offset] : nil }

  mutating func skipSpaces() {
    while offset < count, base[offset] == 0x20 || base[offset] == 0x09 { offset += 1 }
  }

  /// Goes on to the next space or the end and returns what it passed.
  mutating func token() -> Range<Int> {
    let start = offset
    while offset < count, base[offset] != 0x20, base[offset] != 0x09 { offset += 1 }
    return start..<offset
  }

  mutating func skip(_ byte: UInt8) -> Bool {
    guard peek == byte else { return false }
    offset += 1
    return true
  }

  mutating func skip(_ text: StaticString) -> Bool {
    let length = text.utf8CodeUnitCount
    guard count - offset >= length else { return false }
    for index in 0..<length where base[offset + index] != text.utf8Start[index] { return false }
    offset += length
    return true
  }

  /// Moves behind the next occurrence of `text`.
  mutating func skip(past text: StaticString) -> Bool {
    let start = offset
    while offset < count {
      if skip(text) { return true }
      offset += 1
    }
    offset = start
    return false
  }

  mutating func moveToEnd() { offset = count }

  mutating func move(to offset: Int) { self.offset = min(max(offset, 0), count) }

  /// A decimal number without sign.
  mutating func decimal() -> UInt64? {
    let start = offset
    var value: UInt64 = 0
    while offset < count, case let digit = base[offset] &- 0x30, digit < 10 {
      let (product, high) = value.multipliedReportingOverflow(by: 10)
      let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
      if high || carry {
        offset = start
        return nil
      }
      value = sum
      offset += 1
    }
    return offset == start ? nil : value
  }

  /// A decimal number that may be negative.
  mutating func integer() -> Int64? {
    let start = offset
    let isNegative = skip(0x2d)
    guard let value = decimal(), let signed = Int64(exactly: value) else {
      offset = start
      return nil
    }
    return isNegative ? -signed : signed
  }

  /// An identifier of a process or thread.
  mutating func identifier() -> Int32? {
    let start = offset
    guard let value = integer(), let id = Int32(exactly: value) else {
      offset = start
      return nil
    }
    return id
  }

  /// A number written `0x...`, of at most 64 bits.
  mutating func hexadecimal() -> UInt64? {
    let start = offset
    guard skip("0x"), let value = bareHexadecimal() else {
      offset = start
      return nil
    }
    return value
  }

  /// Hexadecimal digits without `0x`, of at most 64 bits.
  mutating func bareHexadecimal() -> UInt64? {
    let start = offset
    var value: UInt64 = 0
    digits: while offset < count {
      let byte = base[offset]
      let digit: UInt8
      switch byte {
      case 0x30...0x39: digit = byte - 0x30
      case 0x61...0x66: digit = byte - 0x61 + 10
      case 0x41...0x46: digit = byte - 0x41 + 10
      default: break digits
      }
      if value >> 60 != 0 {
        offset = start
        return nil
      }
      value = value << 4 | UInt64(digit)
      offset += 1
    }
    return offset == start ? nil : value
  }

  /// A number as perf prints it: hexadecimal with `0x`, or decimal; a space, comma or the end
  /// follows it.
  mutating func number() -> UInt64? {
    let start = offset
    let value = hexadecimal() ?? integer().map { UInt64(bitPattern: $0) }
    if let value {
      switch peek {
      case nil, 0x20, 0x2c, 0x0d: return value
      default: break
      }
    }
    offset = start
    return nil
  }

  /// A moment in seconds with a fraction of 1 to 9 digits, ended by a colon; as nanoseconds.
  mutating func time() -> UInt64? {
    let start = offset
    if let seconds = decimal(), seconds < 1 << 31, skip(0x2e), case let first = offset,
      let fraction = decimal(), case let digits = offset - first, digits <= 9, skip(0x3a)
    {
      var nanoseconds = fraction
      for _ in digits..<9 { nanoseconds *= 10 }
      return seconds * 1_000_000_000 + nanoseconds
    }
    offset = start
    return nil
  }

  func bytes(_ range: Range<Int>) -> UnsafeBufferPointer<UInt8> {
    UnsafeBufferPointer(start: base + range.lowerBound, count: range.count)
  }

  func string(_ range: Range<Int>) -> String { String(decoding: bytes(range), as: UTF8.self) }

  /// What is left of the line, without spaces at its end.
  var rest: String {
    var end = count
    while end > offset, base[end - 1] == 0x20 { end -= 1 }
    return string(offset..<end)
  }
}
