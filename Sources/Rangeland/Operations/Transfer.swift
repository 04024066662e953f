// SPDX-License-Identifier: Apache-2.0
//
// Copies between the memory of two spaces.
//
// Range: in the other space the pages, for reading, while they are pinned; in this one what accesses take. Never the
// locks of both: what is pinned stays where it is without one.
// Linux: mm/process_vm_access.c `process_vm_rw_core`, `process_vm_rw_single_vec`, `process_vm_rw_pages`.

import SystemPackage

/// A stretch of memory of a space (Linux `struct iovec`): any bounds, and it may be empty.
public struct MemoryPiece: Sendable, Hashable {
  /// The first byte.
  public var address: Address
  /// In bytes.
  public var length: UInt64

  @inlinable
  public init(address: Address, length: UInt64) {
    (self.address, self.length) = (address, length)
  }
}

extension AddressSpace {
  /// Copies bytes of another space's memory into this one's (Linux `process_vm_readv`).
  ///
  /// The other space's pages are brought in as they are needed, need the right to be read, and stay in memory while
  /// they are copied, whatever others do to their mappings; stacks of it do not grow. Whether several pages are of one
  /// instant is not said. This space's memory is written as by `write`. The two may be one space; what comes of pieces
  /// that share bytes is not said.
  ///
  /// Takes the other space's lock for reading over its pages, 64 at a time, and then what accesses of this one take;
  /// never both.
  ///
  /// - Parameters:
  ///   - other: of the same `memory` or of another.
  ///   - source: an address of the other space.
  ///   - target: an address of this one.
  ///   - length: in bytes; 0 copies nothing.
  /// - Returns: the bytes that were copied: fewer than `length` where a page on either side refuses.
  /// - Throws: `EFAULT` if that is the first one.
  public func read(
    from other: AddressSpace, at source: Address, into target: Address, length: UInt64
  ) throws(Errno) -> UInt64 {
    try transfer(
      MemoryPiece(address: target, length: length), MemoryPiece(address: source, length: length),
      with: other, isWrite: false)
  }

  /// Copies bytes of this space's memory into another one's (Linux `process_vm_writev`): see `read(from:at:into:length:)`.
  /// The other space's pages need the right to be written to, private ones become its own, and those of files are written
  /// back as what is stored there is.
  ///
  /// - Returns: the bytes that were copied: fewer than `length` where a page on either side refuses.
  /// - Throws: `EFAULT` if that is the first one.
  public func write(
    to other: AddressSpace, at target: Address, from source: Address, length: UInt64
  ) throws(Errno) -> UInt64 {
    try transfer(
      MemoryPiece(address: source, length: length), MemoryPiece(address: target, length: length),
      with: other, isWrite: true)
  }

  /// The same of several pieces, as if each side's were one after the other; as many bytes as the shorter side has.
  public func read(
    from other: AddressSpace, _ sources: [MemoryPiece], into targets: [MemoryPiece]
  ) throws(Errno) -> UInt64 {
    try transfer(targets, sources, with: other, isWrite: false)
  }

  /// The same of several pieces, as if each side's were one after the other; as many bytes as the shorter side has.
  public func write(
    to other: AddressSpace, _ targets: [MemoryPiece], from sources: [MemoryPiece]
  ) throws(Errno) -> UInt64 {
    try transfer(sources, targets, with: other, isWrite: true)
  }

  private func transfer(
    _ local: MemoryPiece, _ remote: MemoryPiece, with other: AddressSpace, isWrite: Bool
  ) throws(Errno) -> UInt64 {
    try withUnsafePointer(to: local) { (local) throws(Errno) in
      try withUnsafePointer(to: remote) { (remote) throws(Errno) in
        try transfer(
          UnsafeBufferPointer(start: local, count: 1), UnsafeBufferPointer(start: remote, count: 1),
          with: other, isWrite: isWrite)
      }
    }
  }

  private func transfer(
    _ local: [MemoryPiece], _ remote: [MemoryPiece], with other: AddressSpace, isWrite: Bool
  ) throws(Errno) -> UInt64 {
    try local.withUnsafeBufferPointer { (local) throws(Errno) in
      try remote.withUnsafeBufferPointer { (remote) throws(Errno) in
        try transfer(local, remote, with: other, isWrite: isWrite)
      }
    }
  }

  /// Pages that are pinned at a time (Linux: two pages of pointers to them).
  private static var pinnedPages: UInt64 { 1024 }

  /// The copy: from the other space, or with `isWrite` to it.
  func transfer(
    _ local: UnsafeBufferPointer<MemoryPiece>, _ remote: UnsafeBufferPointer<MemoryPiece>,
    with other: AddressSpace, isWrite: Bool
  ) throws(Errno) -> UInt64 {
    var cursor = Cursor(pieces: local)
    cursor.skipEmpty()
    var isComplete = true
    for piece in remote where isComplete && !cursor.isAtEnd && piece.length > 0 {
      // As long as it is: the other space's pages are looked at before this one's.
      let pages =
        ((piece.length - 1) >> 12) + ((piece.address & 4095) + ((piece.length - 1) & 4095)) >> 12
        + 1
      isComplete = withUnsafeTemporaryAllocation(
        of: PinnedPage.self, capacity: Int(min(pages, Self.pinnedPages))
      ) { pinned in
        transfer(&cursor, piece, pages, with: other, isWrite: isWrite, pinned)
      }
    }
    if cursor.done == 0 && !isComplete { throw .badAddress }
    return cursor.done
  }

  /// One piece of the other space; whether no page has refused.
  private func transfer(
    _ cursor: inout Cursor, _ piece: MemoryPiece, _ count: UInt64, with other: AddressSpace,
    isWrite: Bool, _ pinned: UnsafeMutableBufferPointer<PinnedPage>
  ) -> Bool {
    var offset = Int(piece.address & 4095)
    var page = piece.address & ~4095
    var (pages, bytes) = (count, piece.length)
    while pages > 0 && !cursor.isAtEnd {
      let wanted = Int(min(pages, UInt64(pinned.count)))
      let got = other.pin(
        page, isWrite ? .write : .read,
        into: UnsafeMutableBufferPointer(rebasing: pinned[..<wanted])
      ).count
      if got == 0 { return false }
      var isComplete = true
      for i in 0..<got where isComplete && !cursor.isAtEnd {
        let part = Int(min(UInt64(4096 - offset), bytes))
        let place = other.arena.pointee.bytes(of: pinned[i].frame) + offset
        isComplete = transfer(&cursor, place, part, isWrite: isWrite)
        bytes -= UInt64(part)
        offset = 0
      }
      other.unpin(UnsafeMutableBufferPointer(rebasing: pinned[..<got]), dirty: isWrite)
      if !isComplete { return false }
      page &+= UInt64(got) << 12
      pages -= UInt64(got)
    }
    return true
  }

  /// A part of one page of the other space, as long as there is memory of this one; whether no page of it has refused.
  private func transfer(
    _ cursor: inout Cursor, _ place: UnsafeMutableRawPointer, _ count: Int, isWrite: Bool
  ) -> Bool {
    var done = 0
    while done < count && !cursor.isAtEnd {
      let part = Int(min(UInt64(count - done), cursor.left))
      let bytes = UnsafeMutableRawBufferPointer(start: place + done, count: part)
      do throws(AccessFault) {
        if isWrite {
          try read(at: cursor.address, into: bytes)
        } else {
          try write(UnsafeRawBufferPointer(bytes), at: cursor.address)
        }
        cursor.advance(UInt64(part))
      } catch {
        // Up to the address that refused; outside of all that can be mapped there is none.
        if error.reason != .notCanonical { cursor.advance(error.address &- cursor.address) }
        return false
      }
      done += part
    }
    return true
  }

  /// Where a copy is in the pieces of this space.
  private struct Cursor {
    let pieces: UnsafeBufferPointer<MemoryPiece>
    var index = 0
    /// In the piece.
    var offset: UInt64 = 0
    /// Bytes copied.
    var done: UInt64 = 0

    init(pieces: UnsafeBufferPointer<MemoryPiece>) { self.pieces = pieces }

    var isAtEnd: Bool { index == pieces.count }
    var address: Address { pieces[index].address &+ offset }
    /// In the piece.
    var left: UInt64 { pieces[index].length - offset }

    mutating func advance(_ bytes: UInt64) {
      offset += bytes
      done += bytes
      skipEmpty()
    }

    mutating func skipEmpty() {
      while index < pieces.count, pieces[index].length == offset {
        index += 1
        offset = 0
      }
    }
  }
}
