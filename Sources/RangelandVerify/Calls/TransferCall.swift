// SPDX-License-Identifier: Apache-2.0
//
// process_vm_readv and process_vm_writev between the spaces of a script: `target` and `newLength` are the other space's
// memory, `value` the space, `protection` the numbers of pieces that both are cut into, `flags` the flags.

import CKernelProtocol
import Rangeland
import SystemPackage

struct TransferCall: CallDefinition {
  var isWrite: Bool

  private var kind: VerifyCall.Kind { isWrite ? .processWrite : .processRead }

  var fields: [CallField] {
    [
      CallField("space", \.value, isHex: false), CallField("address", \.target),
      CallField("length", \.newLength), CallField("pieces", \.protection),
      CallField("flags", \.flags),
    ]
  }

  func isKnown(_ call: VerifyCall) -> Bool {
    call.value < SpaceFamily.mostMembers && call.protection < 1 << 32
      && [call.localCount, call.remoteCount].allSatisfy { $0 <= Self.mostPieces || $0 == 1025 }
  }

  /// Both lists fit into the helper's buffer; 1025, which is too many, is refused before any is read.
  static var mostPieces: UInt64 { 8 }

  // MARK: made up

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .store, .munmap, .mprotect, .fork] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    var length = generator.length(subject, window, offset)
    let inside = generator.random.pick([0, 0, 8, 4088, generator.random.below(4096)] as [UInt64])
    length = inside >= length ? length : length - inside
    var call = VerifyCall(kind, VerifyAddress(window, offset + inside % length), length)
    let members = (subject as? SpaceFamily)?.all ?? [0]
    call.value = UInt64(generator.random.pick(members))
    let other = (subject as? SpaceFamily)?.member(Int(call.value)) ?? subject
    // Often as much, at another place within a page.
    let found = generator.random.chance(50) ? generator.mapped(other) : nil
    let (there, start) = found.map { ($0.window, $0.offset) } ?? generator.place(other)
    call.newLength = generator.random.chance(60) ? length : found?.length ?? 4096
    let shift = generator.random.pick([0, 0, 16, generator.random.below(4096)] as [UInt64])
    call.newLength = min(call.newLength, generator.room(there, start) - shift)
    call.target = VerifyAddress(there, start + shift)
    call.protection =
      generator.random.pick([1, 1, 1, 2, 3]) | generator.random.pick([1, 1, 2, 5]) << 16
    return call
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    var call = VerifyCall(kind, VerifyAddress(nil, 0), 0)
    (call.address, call.length) = generator.edgeRange()
    (call.target, call.newLength) = generator.edgeRange()
    call.protection =
      generator.random.pick([1, 0, 1025, 2]) | generator.random.pick([1, 0, 1025, 3]) << 16
    call.flags = generator.random.pick([0, 0, 0, 1, 1 << 32])
    return call
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    var request = KernelRequest(
      operation: KP_TRANSFER, isWrite ? 1 : 0, call.value, call.localCount, call.remoteCount,
      call.flags)
    for piece in call.localPieces + call.remotePieces {
      withUnsafeBytes(of: piece.address) { request.buffer += $0 }
      withUnsafeBytes(of: piece.length) { request.buffer += $0 }
    }
    return request
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    var ranges: [KernelProcess.AddressPair] = []
    // What does not lie where memory may be is refused as a whole.
    let local = min(call.length, call.localCount == 1 ? Self.mostBytes : .max)
    let (end, overflow) = call.at.addingReportingOverflow(local)
    if Int64(bitPattern: call.length) > 0, !overflow, end <= Address.spaceEnd, call.at >= 4096 {
      ranges.append(KernelProcess.AddressPair(start: call.at, end: end))
    }
    let start = call.target.offset
    if Int64(bitPattern: call.newLength) > 0, start < Address.spaceEnd, start >= 4096 {
      let length = min(call.newLength, Address.spaceEnd - start)
      ranges.append(KernelProcess.AddressPair(start: start, end: start + length))
    }
    return ranges
  }

  /// `MAX_RW_COUNT`.
  private static var mostBytes: UInt64 { 0x7fff_f000 }

  /// What comes of pieces that share bytes, also through a file that one of them shows without sharing it, depends on how
  /// the processor copies; what is stored behind the end of a file, in its last page, each side may lose.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    let family = subject as? SpaceFamily
    guard let other = family == nil ? subject : family?.member(Int(call.value)) else {
      return false
    }
    let local = Self.mappings(subject, call.at, call.length)
    let remote = Self.mappings(other, call.target.offset, call.newLength)
    if local.contains(where: \.isShared) && remote.contains(where: \.isShared) { return false }
    if family == nil || family?.current == Int(call.value), call.at < Address.spaceEnd,
      call.target.offset < Address.spaceEnd, call.length < 1 << 47, call.newLength < 1 << 47,
      call.at < call.target.offset + call.newLength, call.target.offset < call.at + call.length
    {
      return false
    }
    let (written, start, length) =
      isWrite ? (remote, call.target.offset, call.newLength) : (local, call.at, call.length)
    let (sum, overflow) = start.addingReportingOverflow(length)
    let end = overflow ? Address.spaceEnd : sum
    let read = isWrite ? local : remote
    for mapping in written where mapping.isShared && mapping.file != 0 {
      if read.contains(where: { $0.file == mapping.file }) { return false }
    }
    return written.allSatisfy { mapping in
      if mapping.file == 0 || !mapping.isShared { return true }
      let size = subject.fileSize(mapping.file - 1)
      let first = mapping.offset + (max(start, mapping.start) - mapping.start)
      let last = mapping.offset + (min(end, mapping.end) - mapping.start)
      return last <= size || first >= (size + 4095) & ~4095
    }
  }

  private static func mappings(
    _ subject: any VerifySubject, _ start: UInt64, _ length: UInt64
  ) -> [VerifyMapping] {
    let (end, overflow) = start.addingReportingOverflow(length)
    return start >= Address.spaceEnd
      ? [] : subject.mappings(start, overflow ? Address.spaceEnd : min(end, Address.spaceEnd))
  }

  /// Stacks grow below what this side's memory is.
  func near(_ call: VerifyCall) -> [NearPlace] {
    [NearPlace(address: call.at, length: call.length)]
  }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    perform(call, on: space, with: space)
  }

  func perform(
    _ call: VerifyCall, on space: AddressSpace, with other: AddressSpace
  ) -> VerifyOutcome {
    let (local, remote) = (call.localPieces, call.remotePieces)
    do throws(Errno) {
      let count = try space.transfer(
        LinuxArguments(0, 0, call.localCount, 0, call.remoteCount, call.flags), isWrite: isWrite,
        { _ in other }, piece: { (isRemote, i) in isRemote ? remote[i] : local[i] })
      return VerifyOutcome(result: Int64(count))
    } catch {
      return VerifyOutcome(error)
    }
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    let name = kind.rawValue
    return [.init(name, "ok", 20), .init(name, "EFAULT", 10), .init(name, "EINVAL", 1)]
  }
}

extension VerifyCall {
  var localCount: UInt64 { protection & 0xffff }
  var remoteCount: UInt64 { protection >> 16 }

  /// The pieces of this side's memory, one behind the other.
  var localPieces: [MemoryPiece] { Self.pieces(at, length, localCount) }
  var remotePieces: [MemoryPiece] { Self.pieces(target.offset, newLength, remoteCount) }

  private static func pieces(_ start: UInt64, _ length: UInt64, _ count: UInt64) -> [MemoryPiece] {
    if count == 0 || count > TransferCall.mostPieces { return [] }
    let part = length / count
    return (0..<count).map {
      MemoryPiece(
        address: start &+ $0 * part, length: $0 == count - 1 ? length - $0 * part : part)
    }
  }
}
