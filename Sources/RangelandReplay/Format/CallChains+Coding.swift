// SPDX-License-Identifier: Apache-2.0
//
// Call chains as bytes: two kinds of blocks that version 3 added. docs/recording-format.md has the layout.

extension ByteWriter {
  mutating func frame(_ frame: CallChains.Frame) {
    byte(frame.isKernel ? 1 : 0)
    text(frame.function)
    text(frame.module)
  }

  mutating func chain(_ frames: some Collection<UInt32>) {
    varint(UInt64(frames.count))
    for frame in frames { varint(UInt64(frame)) }
  }
}

extension ByteCursor {
  mutating func frame() throws(Malformed) -> CallChains.Frame {
    let kind = try byte()
    guard kind <= 1 else { throw .corrupted("a function of the unknown kind \(kind)") }
    return CallChains.Frame(
      function: try text("a function's name"), module: try text("a module's name"),
      isKernel: kind == 1)
  }

  /// Frame numbers below `frames`, at least one.
  mutating func chain(frames: Int) throws(Malformed) -> [UInt32] {
    // A frame takes a byte at least.
    let count = try varint(atMost: remaining, "the length of a call chain")
    guard count > 0 else { throw .corrupted("a call chain without functions") }
    var numbers: [UInt32] = []
    numbers.reserveCapacity(count)
    for _ in 0..<count {
      let number = try varint()
      guard number < UInt64(frames) else {
        throw .impossible("a call chain names function \(number) of \(frames)")
      }
      numbers.append(UInt32(number))
    }
    return numbers
  }
}
