// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing the space. Each call returns `false` (or a short count) when it needs a fault at
// `faultAddress`: the caller's fault handler runs outside any section, then the call is made again.
//
// Aligned accesses of 1, 2, 4 and 8 bytes are atomic (relaxed), so that threads may use the space to
// synchronise through `tryCompareExchange`, and race on purpose; larger and unaligned ones are copies.

import Synchronization

extension UnsafeMutablePointer where Pointee == AccessorState {
  /// Reads a value; `false` = needs a read fault, `value` is unchanged.
  ///
  /// - Complexity: about 8 ns on a hit.
  @inline(__always)
  func tryLoad<T: BitwiseCopyable>(_ address: Address, into value: inout T) -> Bool {
    let size = MemoryLayout<T>.size
    guard size <= 8, size & (size - 1) == 0, address & UInt64(size - 1) == 0 else {
      return withUnsafeMutableBytes(of: &value) {
        tryLoadBytes(address, into: $0.baseAddress!, count: size)
      }
    }
    beginSection()
    guard let host = translate(address, forWriting: false) else {
      endSection()
      return false
    }
    // The cast of the case that runs is of equal sizes; the others are not compiled.
    switch size {
    case 8: value = unsafeBitCast(host.atomic64.pointee.load(ordering: .relaxed), to: T.self)
    case 4: value = unsafeBitCast(host.atomic32.pointee.load(ordering: .relaxed), to: T.self)
    case 2: value = unsafeBitCast(host.atomic16.pointee.load(ordering: .relaxed), to: T.self)
    default: value = unsafeBitCast(host.atomic8.pointee.load(ordering: .relaxed), to: T.self)
    }
    endSection()
    return true
  }

  /// Writes a value; `false` = needs a write fault. A value that crosses into a page that faults is
  /// checked before it is begun, so that nothing of it is written.
  @inline(__always)
  func tryStore<T: BitwiseCopyable>(_ address: Address, _ value: T) -> Bool {
    let size = MemoryLayout<T>.size
    guard size <= 8, size & (size - 1) == 0, address & UInt64(size - 1) == 0 else {
      return withUnsafeBytes(of: value) {
        tryStoreBytes(address, from: $0.baseAddress!, count: size)
      }
    }
    beginSection()
    guard let host = translate(address, forWriting: true) else {
      endSection()
      return false
    }
    // The cast of the case that runs is of equal sizes; the others are not compiled.
    switch size {
    case 8: host.atomic64.pointee.store(unsafeBitCast(value, to: UInt64.self), ordering: .relaxed)
    case 4: host.atomic32.pointee.store(unsafeBitCast(value, to: UInt32.self), ordering: .relaxed)
    case 2: host.atomic16.pointee.store(unsafeBitCast(value, to: UInt16.self), ordering: .relaxed)
    default: host.atomic8.pointee.store(unsafeBitCast(value, to: UInt8.self), ordering: .relaxed)
    }
    endSection()
    return true
  }

  /// Replaces 8 bytes by `desired` if they are `expected`. `seen` becomes what was there: success means
  /// `seen == expected`. Sequentially consistent. `false` = needs a write fault.
  ///
  /// - Precondition: `address` is a multiple of 8.
  func tryCompareExchange(
    _ address: Address, expected: UInt64, desired: UInt64, seen: inout UInt64
  ) -> Bool {
    precondition(address & 7 == 0, "compare-and-swap on an unaligned address")
    beginSection()
    defer { endSection() }
    guard let host = translate(address, forWriting: true) else { return false }
    seen =
      host.atomic64.pointee.compareExchange(
        expected: expected, desired: desired, ordering: .sequentiallyConsistent
      ).original
    return true
  }

  /// As above for 4 bytes.
  ///
  /// - Precondition: `address` is a multiple of 4.
  func tryCompareExchange(
    _ address: Address, expected: UInt32, desired: UInt32, seen: inout UInt32
  ) -> Bool {
    precondition(address & 3 == 0, "compare-and-swap on an unaligned address")
    beginSection()
    defer { endSection() }
    guard let host = translate(address, forWriting: true) else { return false }
    seen =
      host.atomic32.pointee.compareExchange(
        expected: expected, desired: desired, ordering: .sequentiallyConsistent
      ).original
    return true
  }

  /// Copies out of the space, page by page, each page a section of its own. Returns the bytes copied:
  /// fewer than `count` = needs a read fault at `address` + result.
  func tryCopyOut(
    _ address: Address, to destination: UnsafeMutableRawPointer, count: Int
  ) -> Int {
    var done = 0
    while done < count {
      let at = address &+ UInt64(done)
      let piece = Swift.min(count - done, 4096 - Int(at & 0xfff))
      beginSection()
      guard let host = translate(at, forWriting: false) else {
        endSection()
        return done
      }
      (destination + done).copyMemory(from: host, byteCount: piece)
      endSection()
      done += piece
    }
    return done
  }

  /// Copies into the space, page by page. Returns the bytes copied: fewer than `count` = needs a write
  /// fault at `address` + result.
  func tryCopyIn(_ address: Address, from source: UnsafeRawPointer, count: Int) -> Int {
    var done = 0
    while done < count {
      let at = address &+ UInt64(done)
      let piece = Swift.min(count - done, 4096 - Int(at & 0xfff))
      beginSection()
      guard let host = translate(at, forWriting: true) else {
        endSection()
        return done
      }
      host.copyMemory(from: source + done, byteCount: piece)
      endSection()
      done += piece
    }
    return done
  }

  /// Whether an access would need no fault now. Fills the cache.
  func probe(_ address: Address, forWriting: Bool) -> Bool {
    beginSection()
    defer { endSection() }
    return translate(address, forWriting: forWriting) != nil
  }

  /// A value that is unaligned, large, or crosses pages.
  @inline(never)
  private func tryLoadBytes(
    _ address: Address, into destination: UnsafeMutableRawPointer, count: Int
  ) -> Bool {
    guard crossesIntoPresentPage(address, count, forWriting: false) else { return false }
    return tryCopyOut(address, to: destination, count: count) == count
  }

  @inline(never)
  func tryStoreBytes(
    _ address: Address, from source: UnsafeRawPointer, count: Int
  ) -> Bool {
    guard crossesIntoPresentPage(address, count, forWriting: true) else { return false }
    return tryCopyIn(address, from: source, count: count) == count
  }

  /// Whether all pages after the first are there, if there are any.
  private func crossesIntoPresentPage(
    _ address: Address, _ count: Int, forWriting: Bool
  ) -> Bool {
    guard count > 0 else { return true }
    let last = (address &+ UInt64(count - 1)).pageNumber
    var page = address.pageNumber
    while page <= last {
      // The lowest byte that faults is reported, as the processor does: in the first page the access's own.
      if !probe(Swift.max(page << 12, address), forWriting: forWriting) { return false }
      page += 1
    }
    return true
  }
}

extension UnsafeMutableRawPointer {
  // Sound: frames are plain bytes that are read and written as atomics or copied, never as Swift values.
  @inline(__always) fileprivate var atomic64: UnsafeMutablePointer<Atomic<UInt64>> {
    assumingMemoryBound(to: Atomic<UInt64>.self)
  }
  @inline(__always) fileprivate var atomic32: UnsafeMutablePointer<Atomic<UInt32>> {
    assumingMemoryBound(to: Atomic<UInt32>.self)
  }
  @inline(__always) fileprivate var atomic16: UnsafeMutablePointer<Atomic<UInt16>> {
    assumingMemoryBound(to: Atomic<UInt16>.self)
  }
  @inline(__always) fileprivate var atomic8: UnsafeMutablePointer<Atomic<UInt8>> {
    assumingMemoryBound(to: Atomic<UInt8>.self)
  }
}
