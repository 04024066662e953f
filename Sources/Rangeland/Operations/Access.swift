// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing the memory of a space, through the calling thread's accessor.
//
// An access that misses faults outside any accessor section and is made again, until it succeeds or the
// fault is refused. Linux: what the processor, and copy_{from,to}_user, do.

import SystemPackage

extension AddressSpace {
  /// Reads a value at any alignment. Values of 1, 2, 4 and 8 aligned bytes are read in one piece
  /// (relaxed atomic); others are copied.
  ///
  /// - Throws: `AccessFault` with the address that refused.
  @inline(__always)
  public func load<T: BitwiseCopyable>(
    _ type: T.Type = T.self, at address: Address
  ) throws(AccessFault) -> T {
    let accessor = try ownAccessor(address, .read)
    var bits: UInt64 = 0
    if MemoryLayout<T>.size <= 8 {
      try loadSmall(MemoryLayout<T>.size, &bits, address, accessor)
      return withUnsafeBytes(of: bits) { $0.loadUnaligned(as: T.self) }
    }
    return try loadLarge(address)
  }

  @inline(__always)
  private func loadSmall(
    _ size: Int, _ bits: inout UInt64, _ address: Address, _ accessor: AccessorRef
  ) throws(AccessFault) {
    while true {
      let done: Bool
      switch size {
      case 8: done = accessor.tryLoad(address, into: &bits)
      case 4:
        var value: UInt32 = 0
        done = accessor.tryLoad(address, into: &value)
        bits = UInt64(value)
      case 2:
        var value: UInt16 = 0
        done = accessor.tryLoad(address, into: &value)
        bits = UInt64(value)
      case 1:
        var value: UInt8 = 0
        done = accessor.tryLoad(address, into: &value)
        bits = UInt64(value)
      default:
        done = withUnsafeMutableBytes(of: &bits) {
          accessor.tryCopyOut(address, to: $0.baseAddress!, count: size) == size
        }
      }
      if done { return }
      try fault(at: accessor.pointee.faultAddress, .read)
    }
  }

  @inline(never)
  private func loadLarge<T: BitwiseCopyable>(_ address: Address) throws(AccessFault) -> T {
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: MemoryLayout<T>.size, alignment: MemoryLayout<T>.alignment)
    defer { buffer.deallocate() }
    try read(at: address, into: buffer)
    return buffer.load(as: T.self)
  }

  /// Writes a value at any alignment. Values of 1, 2, 4 and 8 aligned bytes are written in one piece
  /// (relaxed atomic); others are copied, and a fault in the middle leaves what came before.
  ///
  /// - Throws: `AccessFault` with the address that refused.
  @inline(__always)
  public func store<T: BitwiseCopyable>(
    _ value: T, at address: Address
  ) throws(AccessFault) {
    let accessor = try ownAccessor(address, .write)
    while !accessor.tryStore(address, value) {
      try fault(at: accessor.pointee.faultAddress, .write)
    }
  }

  /// Replaces 8 bytes by `desired` if they are `expected`, atomically and sequentially consistent.
  ///
  /// - Parameter address: a multiple of 8.
  /// - Returns: what was there; the exchange took place if that equals `expected`.
  /// - Throws: `AccessFault` with the address that refused.
  public func compareExchange(
    at address: Address, expected: UInt64, desired: UInt64
  ) throws(AccessFault) -> UInt64 {
    precondition(address & 7 == 0, "compareExchange: the address is not a multiple of 8")
    let accessor = try ownAccessor(address, .write)
    var seen: UInt64 = 0
    while !accessor.tryCompareExchange(
      address, expected: expected, desired: desired, seen: &seen)
    {
      try fault(at: accessor.pointee.faultAddress, .write)
    }
    return seen
  }

  /// Copies out of the space, page by page; each page is read as it is at one instant.
  ///
  /// - Throws: `AccessFault` with the first address that refused; what came before it was copied.
  public func read(
    at address: Address, into buffer: UnsafeMutableRawBufferPointer
  ) throws(AccessFault) {
    guard let target = buffer.baseAddress, !buffer.isEmpty else { return }
    let accessor = try ownAccessor(address, .read)
    var done = 0
    while true {
      done += accessor.tryCopyOut(
        address &+ UInt64(done), to: target + done, count: buffer.count - done)
      if done == buffer.count { return }
      try fault(at: address &+ UInt64(done), .read)
    }
  }

  /// Copies into the space, page by page.
  ///
  /// - Throws: `AccessFault` with the first address that refused; what came before it was copied.
  public func write(
    _ bytes: UnsafeRawBufferPointer, at address: Address
  ) throws(AccessFault) {
    guard let source = bytes.baseAddress, !bytes.isEmpty else { return }
    let accessor = try ownAccessor(address, .write)
    var done = 0
    while true {
      done += accessor.tryCopyIn(
        address &+ UInt64(done), from: source + done, count: bytes.count - done)
      if done == bytes.count { return }
      try fault(at: address &+ UInt64(done), .write)
    }
  }

  /// The calling thread's accessor.
  @inline(__always)
  private func ownAccessor(
    _ address: Address, _ access: AccessKind
  ) throws(AccessFault) -> AccessorRef {
    guard let accessor = accessors.accessor(reclaimer.context()) else {
      throw AccessFault(reason: .outOfMemory, address: address, access: access)
    }
    return accessor
  }
}
