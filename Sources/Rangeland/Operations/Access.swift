// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing the memory of a space, through the calling thread's accessor.
//
// An access that misses faults outside any accessor section and is made again, until it succeeds or the
// fault is refused. Linux: what the processor, and copy_{from,to}_user, do.

import SystemPackage

extension AddressSpace {
  /// Reads a value at any alignment, over the border of two pages too. Values of 1, 2, 4 and 8 aligned bytes are read
  /// in one piece (relaxed atomic); others are copied.
  ///
  /// Takes no lock where the thread has used the page before; else it makes a fault first: see `fault`. The right to
  /// execute is no right to be asked for here: `fault(at:_:)` asks for it.
  ///
  /// - Parameters:
  ///   - type: one for which any bytes mean something: what nobody has stored reads as zeros.
  ///   - address: any.
  /// - Throws: `AccessFault` with the address that refused.
  @inlinable
  public func load<T: BitwiseCopyable>(
    _ type: T.Type = T.self, at address: Address
  ) throws(AccessFault) -> T {
    // Inlined into the caller, so that it and what it calls are not generic where they run.
    switch MemoryLayout<T>.size {
    case 8: return unsafeBitCast(try loadSmall(8, at: address), to: T.self)
    case 4:
      let bits = try loadSmall(4, at: address)
      return unsafeBitCast(UInt32(truncatingIfNeeded: bits), to: T.self)
    case 2:
      let bits = try loadSmall(2, at: address)
      return unsafeBitCast(UInt16(truncatingIfNeeded: bits), to: T.self)
    case 1:
      let bits = try loadSmall(1, at: address)
      return unsafeBitCast(UInt8(truncatingIfNeeded: bits), to: T.self)
    case 0..<8:
      let bits = try loadSmall(MemoryLayout<T>.size, at: address)
      return withUnsafeBytes(of: bits) { $0.loadUnaligned(as: T.self) }
    default: return try loadLarge(address)
    }
  }

  /// Up to 8 bytes, in the low bytes of the result.
  @usableFromInline
  func loadSmall(_ size: Int, at address: Address) throws(AccessFault) -> UInt64 {
    let accessor = try ownAccessor(address, .read)
    var bits: UInt64 = 0
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
      if done { return bits }
      try fault(at: accessor.pointee.faultAddress, .read, for: accessor)
    }
  }

  @usableFromInline @inline(never)
  func loadLarge<T: BitwiseCopyable>(_ address: Address) throws(AccessFault) -> T {
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: MemoryLayout<T>.size, alignment: MemoryLayout<T>.alignment)
    defer { buffer.deallocate() }
    try read(at: address, into: buffer)
    return buffer.load(as: T.self)
  }

  /// Writes a value at any alignment. Values of 1, 2, 4 and 8 aligned bytes are written in one piece
  /// (relaxed atomic); others are copied. A fault leaves nothing of the value, unless the mappings change while it is
  /// stored. Locks as `load`.
  ///
  /// - Throws: `AccessFault` with the address that refused.
  @inlinable
  public func store<T: BitwiseCopyable>(
    _ value: T, at address: Address
  ) throws(AccessFault) {
    // Inlined into the caller: see `load`.
    switch MemoryLayout<T>.size {
    case 8: try storeSmall(8, unsafeBitCast(value, to: UInt64.self), at: address)
    case 4: try storeSmall(4, UInt64(unsafeBitCast(value, to: UInt32.self)), at: address)
    case 2: try storeSmall(2, UInt64(unsafeBitCast(value, to: UInt16.self)), at: address)
    case 1: try storeSmall(1, UInt64(unsafeBitCast(value, to: UInt8.self)), at: address)
    default:
      try withUnsafeBytes(of: value) { (bytes) throws(AccessFault) in
        try storeBytes(bytes, at: address)
      }
    }
  }

  /// 1, 2, 4 or 8 bytes, from the low bytes of `bits`.
  @usableFromInline
  func storeSmall(_ size: Int, _ bits: UInt64, at address: Address) throws(AccessFault) {
    let accessor = try ownAccessor(address, .write)
    while true {
      let done =
        switch size {
        case 8: accessor.tryStore(address, bits)
        case 4: accessor.tryStore(address, UInt32(truncatingIfNeeded: bits))
        case 2: accessor.tryStore(address, UInt16(truncatingIfNeeded: bits))
        default: accessor.tryStore(address, UInt8(truncatingIfNeeded: bits))
        }
      if done { return }
      try fault(at: accessor.pointee.faultAddress, .write, for: accessor)
    }
  }

  @usableFromInline @inline(never)
  func storeBytes(
    _ bytes: UnsafeRawBufferPointer, at address: Address
  ) throws(AccessFault) {
    guard let source = bytes.baseAddress, !bytes.isEmpty else { return }
    let accessor = try ownAccessor(address, .write)
    while !accessor.tryStoreBytes(address, from: source, count: bytes.count) {
      try fault(at: accessor.pointee.faultAddress, .write, for: accessor)
    }
  }

  /// Replaces 8 bytes by `desired` if they are `expected`, atomically and sequentially consistent.
  ///
  /// - Parameters:
  ///   - address: a multiple of 8.
  ///   - expected: what has to be there.
  ///   - desired: what is there afterwards.
  /// - Returns: what was there; the exchange took place if that equals `expected`.
  /// - Throws: `AccessFault` with the address that refused; the right to write is asked for whatever is there.
  /// - Precondition: the address is a multiple of 8.
  public func compareExchange(
    at address: Address, expected: UInt64, desired: UInt64
  ) throws(AccessFault) -> UInt64 {
    precondition(address & 7 == 0, "compareExchange: the address is not a multiple of 8")
    let accessor = try ownAccessor(address, .write)
    var seen: UInt64 = 0
    while !accessor.tryCompareExchange(
      address, expected: expected, desired: desired, seen: &seen)
    {
      try fault(at: accessor.pointee.faultAddress, .write, for: accessor)
    }
    return seen
  }

  /// Copies out of the space, page by page: the bytes of each are of one mapping, whatever becomes of it meanwhile. Stores of
  /// other threads that run beside the call may be seen in part.
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
      try fault(at: address &+ UInt64(done), .read, for: accessor)
    }
  }

  /// The same, into an array, which is allocated: for what is not done often.
  ///
  /// - Parameters:
  ///   - address: any.
  ///   - count: bytes, not negative.
  /// - Throws: `AccessFault` with the first address that refused.
  public func read(at address: Address, count: Int) throws(AccessFault) -> [UInt8] {
    precondition(count >= 0, "AddressSpace.read: the count is negative")
    var bytes = [UInt8](repeating: 0, count: count)
    var failure: AccessFault?
    bytes.withUnsafeMutableBytes {
      do throws(AccessFault) {
        try read(at: address, into: $0)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes
  }

  /// Copies the bytes of a span into the space, page by page: `try space.write(array.span.bytes, at: address)`.
  ///
  /// - Throws: `AccessFault` with the first address that refused; what came before it was copied.
  public func write(_ bytes: RawSpan, at address: Address) throws(AccessFault) {
    try bytes.withUnsafeBytes { (bytes) throws(AccessFault) in try write(bytes, at: address) }
  }

  /// Copies into the space, page by page, as `read`.
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
      try fault(at: address &+ UInt64(done), .write, for: accessor)
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
