// SPDX-License-Identifier: Apache-2.0
//
// `process_vm_readv` and `process_vm_writev` with raw arguments. Both lists of pieces are read from the caller's space.
//
// Source: Linux mm/process_vm_access.c `process_vm_rw`; lib/iov_iter.c `__import_iovec`, `copy_iovec_from_user`.

import SystemPackage

extension AddressSpace {
  /// process, address and number of this space's pieces, the same of the other's, flags.
  ///
  /// - Parameter process: the space of a process; `nil` = there is none of that number.
  func linuxTransfer(
    _ arguments: LinuxArguments, isWrite: Bool, _ process: (Int32) -> AddressSpace?
  ) throws(Errno) -> UInt64 {
    try transfer(arguments, isWrite: isWrite, process) {
      (isRemote, i) throws(Errno) -> MemoryPiece in
      let list = isRemote ? arguments.fourth : arguments.second
      let count = isRemote ? arguments.fifth : arguments.third & 0xffff_ffff
      if i == 0 { try checkUser(MemoryPiece(address: list, length: count * 16)) }
      return try piece(at: list + UInt64(i) * 16)
    }
  }

  /// The same with pieces that the caller reads when it is their turn.
  package func transfer(
    _ arguments: LinuxArguments, isWrite: Bool, _ process: (Int32) -> AddressSpace?,
    piece: (_ isRemote: Bool, Int) throws(Errno) -> MemoryPiece
  ) throws(Errno) -> UInt64 {
    if arguments.sixth != 0 { throw .invalidArgument }
    // The one number is an unsigned int.
    return try withPieces(arguments.third & 0xffff_ffff, isRemote: false, piece) {
      (local) throws(Errno) -> UInt64 in
      try limit(local)
      if local.allSatisfy({ $0.length == 0 }) { return 0 }
      return try withPieces(arguments.fifth, isRemote: true, piece) {
        (remote) throws(Errno) -> UInt64 in
        if remote.allSatisfy({ $0.length == 0 }) { return 0 }
        guard let other = process(Int32(truncatingIfNeeded: arguments.first)) else {
          throw .noSuchProcess
        }
        return try transfer(
          UnsafeBufferPointer(local), UnsafeBufferPointer(remote), with: other, isWrite: isWrite)
      }
    }
  }

  /// Most pieces of one side (`UIO_MAXIOV`), and most bytes of one call (`MAX_RW_COUNT`).
  private static var mostPieces: UInt64 { 1024 }
  private static var mostBytes: UInt64 { 0x7fff_f000 }

  /// Reads `count` pieces.
  private func withPieces(
    _ count: UInt64, isRemote: Bool,
    _ piece: (_ isRemote: Bool, Int) throws(Errno) -> MemoryPiece,
    _ body: (UnsafeMutableBufferPointer<MemoryPiece>) throws(Errno) -> UInt64
  ) throws(Errno) -> UInt64 {
    if count > Self.mostPieces { throw .invalidArgument }
    // Errors of a type do not pass through the library's function.
    var failure: Errno?
    let result = withUnsafeTemporaryAllocation(of: MemoryPiece.self, capacity: Int(count)) {
      (pieces) -> UInt64 in
      do throws(Errno) {
        for i in 0..<Int(count) {
          let piece = try piece(isRemote, i)
          if Int64(bitPattern: piece.length) < 0 { throw .invalidArgument }
          pieces.initializeElement(at: i, to: piece)
        }
        return try body(pieces)
      } catch {
        failure = error
        return 0
      }
    }
    if let failure { throw failure }
    return result
  }

  private func piece(at address: Address) throws(Errno) -> MemoryPiece {
    do throws(AccessFault) {
      let length = try load(UInt64.self, at: address + 8)
      let start = try load(UInt64.self, at: address)
      return MemoryPiece(address: start, length: length)
    } catch {
      throw .badAddress
    }
  }

  /// Looks that pieces lie where memory may be, and cuts off what is too much for one call. Of a single piece the other
  /// way round.
  private func limit(_ pieces: UnsafeMutableBufferPointer<MemoryPiece>) throws(Errno) {
    var left = Self.mostBytes
    for i in pieces.indices {
      if pieces.count == 1 { pieces[i].length = min(pieces[i].length, left) }
      try checkUser(pieces[i])
      pieces[i].length = min(pieces[i].length, left)
      left -= pieces[i].length
    }
  }

  /// Linux `access_ok`.
  private func checkUser(_ piece: MemoryPiece) throws(Errno) {
    let (end, overflow) = piece.address.addingReportingOverflow(piece.length)
    if overflow || end > Address.spaceEnd { throw .badAddress }
  }
}
